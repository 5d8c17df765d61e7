fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .build_server(false)
        .compile_protos(&["proto/sluice/ingest/v1/ingest.proto"], &["proto"])?;
    Ok(())
}
