// Package crash proves that no crash loses or doubles anybody. All of it is
// tests, which take minutes and stand behind a build tag:
//
//	go test -tags crash -count=1 -v ./worker/crash
//
// Workers are processes of the real program. What they send to is a sink that
// notes every recipient of every transaction it accepted, and that knows at
// which point of a transaction each session is; between worker and broker stands
// a proxy that knows what is being recorded and acknowledged. Both can have the
// worker killed right there. At the end the journals are compared with what the
// sink accepted, and a table is printed. A letter that came twice is compared with
// itself: only the time of its signature may differ.
//
// BULKMAIL_CRASH_FOR=10m makes the killing of workers go on for so long with
// each setting of IN_DOUBT.
package crash
