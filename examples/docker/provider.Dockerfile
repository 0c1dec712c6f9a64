FROM debian:trixie-slim
COPY examples/docker/healthy /etc/sluice/healthy
COPY target/dist/sluice-provider /usr/local/bin/sluice-provider
USER 65532:65532
ENTRYPOINT ["sluice-provider", "--listen", "0.0.0.0:8080"]
