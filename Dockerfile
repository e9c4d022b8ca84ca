# The same source gives the same bulkmail, wherever and however often it is built:
# the release of Go is fixed, and no path or time gets into it.
FROM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The commit is for `bulkmail version`. Where the folder is no repository of its
# own, as with an archive of the source, there is none.
RUN vcs=true; git rev-parse --verify -q HEAD >/dev/null 2>&1 || vcs=false; \
    CGO_ENABLED=0 GOFLAGS= go build -trimpath -buildvcs=$vcs -ldflags='-s -w' -o /out/bulkmail ./cmd/bulkmail
# Folders that belong to whom bulkmail runs as: volumes that are mounted there are
# made like them.
RUN cd /out && mkdir -p own/var/lib/bulkmail own/data \
    own/tls/nats own/tls/relay own/tls/provision own/tls/worker own/tls/publisher own/tls/operator

# A NATS server that is not root, and can be asked whether it is well.
FROM nats:2.15.2 AS broker
COPY --from=build /out/bulkmail /usr/bin/bulkmail
COPY --from=build --chown=65532:65532 /out/own/data /data
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=6s --start-period=20s --retries=6 \
    CMD ["bulkmail", "health", "--url", "http://127.0.0.1:8222/healthz"]

FROM scratch
LABEL org.opencontainers.image.title="bulkmail" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/own /
COPY --from=build /out/bulkmail /usr/bin/bulkmail
ENV BULKMAIL_DATA_DIR=/var/lib/bulkmail
USER 65532:65532
# SIGTERM drains; give it longer than BULKMAIL_DRAIN_TIMEOUT until SIGKILL, as with
# docker run --stop-timeout 40.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=6s --start-period=20s --retries=3 CMD ["bulkmail", "health"]
ENTRYPOINT ["bulkmail"]
CMD ["worker"]
