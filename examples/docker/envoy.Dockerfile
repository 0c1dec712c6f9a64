FROM envoyproxy/envoy:v1.40.0
COPY examples/docker/healthy /etc/sluice/healthy
COPY examples/docker/envoy.yaml /etc/envoy/envoy.yaml
COPY target/dist/sluice-filter.wasm /etc/envoy/sluice-filter.wasm
USER 65532:65532
EXPOSE 10000
# No hot restart: a container is replaced, and its root cannot be written.
ENTRYPOINT ["envoy", "--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart", "--log-level", "warning", "--concurrency", "2"]
