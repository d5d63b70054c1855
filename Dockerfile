# docker build -t tidegate .
# docker run -p 127.0.0.1:7070:7070 -e TIDEGATE_ADMIN_TOKEN=… -v tidegate:/data tidegate
# docs/deploy/docker.md has the rest.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
# The revision is shown by /version and in tidegate_build_info.
ARG TIDEGATE_REVISION=unknown
RUN cargo build --profile dist --locked --bin tidegate \
    && deploy/docker/image-root target/dist/tidegate /image

# Nothing but the program and the libraries that it is linked with: no shell, no package manager.
FROM scratch
COPY --from=build /image/root /
COPY --from=build --chown=65532:65532 /image/own /
USER 65532:65532
WORKDIR /data
VOLUME /data
# Every setting has a variable. Off loopback a node needs TIDEGATE_ADMIN_TOKEN or a file with [auth].
ENV TIDEGATE_HTTP=0.0.0.0:7070 TIDEGATE_DATA_DIR=/data
EXPOSE 7070
STOPSIGNAL SIGTERM
# Alive, not ready: a restart does not help a node that waits for others.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["/tidegate", "health", "--live"]
ENTRYPOINT ["/tidegate"]
CMD ["serve"]
