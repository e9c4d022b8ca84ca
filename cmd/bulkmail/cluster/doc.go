// Package cluster proves docker-compose.yml from the outside, on a cluster that is
// up: nobody who has no right to something gets it, and while a list goes through,
// a NATS server is killed, a worker is killed, another one is cut off, and there
// are four workers and then two again. What the sinks took is compared with the
// outcomes:
//
//	docker-compose up -d
//	go test -tags compose -count=1 -v ./cmd/bulkmail/cluster
//
// It uses docker and docker-compose, and the project that docker-compose uses.
// Lists that it publishes and consumers that it makes stay until
// docker-compose down -v. The tests are behind the tag because they need a Docker
// engine and about two minutes.
package cluster
