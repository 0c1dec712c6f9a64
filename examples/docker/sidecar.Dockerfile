FROM debian:trixie-slim
# A new volume takes over owner and mode of the folder that it covers.
RUN mkdir -p /var/lib/sluice && chown 65532:65532 /var/lib/sluice && chmod 700 /var/lib/sluice
COPY examples/docker/healthy examples/docker/sluice.yaml /etc/sluice/
COPY target/dist/sluice /usr/local/bin/sluice
USER 65532:65532
VOLUME /var/lib/sluice
ENTRYPOINT ["sluice", "serve", "--config", "/etc/sluice/sluice.yaml"]
