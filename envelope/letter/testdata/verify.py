# Reads names of files, and says of each whether its signatures hold. The argument
# is a file with the names and texts of DNS records.
import sys, dkim
names = {}
for line in open(sys.argv[1]):
    name, _, record = line.rstrip("\n").partition(" ")
    names[name.encode()] = record.encode()
def txt(name, timeout=5):
    return names.get(name.rstrip(b"."))
for file in sys.stdin:
    file = file.rstrip("\n")
    try:
        good = dkim.verify(open(file, "rb").read(), dnsfunc=txt)
    except Exception:
        good = False
    print("pass" if good else "fail", file)
