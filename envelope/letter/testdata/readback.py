# Reads letters as lines of JSON, with what they must say, and tells of those that
# Python's email package reads otherwise.
import base64, email, json, re, sys
from email.header import decode_header, make_header
from email.utils import getaddresses

allowed = {"from", "to", "subject", "content-type", "date", "message-id", "mime-version"}


def squeeze(text):
    return re.sub(r"[ \t]+", " ", text).strip()


def decoded(value):
    return str(make_header(decode_header(re.sub(r"\r?\n", "", value))))


def wrong(letter):
    message = email.message_from_bytes(base64.b64decode(letter["letter"]))
    fields = [name.lower() for name in message.keys()]
    if set(fields) - allowed or len(set(fields)) != len(fields):
        return "fields %r" % fields
    if message.defects:
        return "defects %r" % message.defects
    if squeeze(decoded(message["Subject"])) != letter["subject"]:
        return "Subject %r" % decoded(message["Subject"])
    to = getaddresses([re.sub(r"\r?\n", "", message["To"])])
    if len(to) != 1 or to[0][1] != "ann@example.net" or squeeze(decoded(to[0][0])) != letter["name"]:
        return "To %r" % to
    parts = message.get_payload()
    if len(parts) != 2:
        return "%d parts" % len(parts)
    for part, text in zip(parts, letter["texts"]):
        got = part.get_payload(decode=True).decode(part.get_content_charset()).replace("\r\n", "\n")
        if got != text:
            return "text %r" % got
    return None


count = 0
for line in sys.stdin:
    letter = json.loads(line)
    count += 1
    try:
        reason = wrong(letter)
    except Exception as error:
        reason = repr(error)
    if reason:
        print(json.dumps({"reason": reason, **letter}))
print(json.dumps({"read": count}))
