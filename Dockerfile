# The image of both containers of the pod: docker build -t harbinger .
FROM docker.io/library/rust:1.95-trixie AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin harbinger \
    && install -D target/release/harbinger /out/harbinger

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /out/harbinger /usr/local/bin/harbinger
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/harbinger"]
