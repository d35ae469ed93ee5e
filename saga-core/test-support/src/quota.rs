//! Quotas of Kafka clients. The client library has no call for them, so this sends the request itself.

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sets the `producer_byte_rate` of a client id, or removes it. The request is `AlterClientQuotas` (49), version 0, of
/// the [Kafka protocol](https://kafka.apache.org/protocol.html#The_Messages_AlterClientQuotas).
pub async fn limit_producer(
    brokers: &str,
    client: &str,
    bytes_a_second: Option<f64>,
) -> Result<()> {
    let one = 1_i32.to_be_bytes().to_vec();
    let entity = [one.clone(), string("client-id"), string(client)].concat();
    let change = [
        one.clone(),
        string("producer_byte_rate"),
        bytes_a_second.unwrap_or_default().to_be_bytes().to_vec(),
        vec![u8::from(bytes_a_second.is_none())],
    ]
    .concat();
    let header = [vec![0, 49, 0, 0, 0, 0, 0, 7], string("test")].concat();
    let is_dry_run = vec![0];
    let request = [header, one, entity, change, is_dry_run].concat();
    let mut stream = TcpStream::connect(brokers).await?;
    stream.write_all(&size(request.len())).await?;
    stream.write_all(&request).await?;
    let length = stream.read_i32().await?;
    let mut answer = vec![0; length.max(14).unsigned_abs() as usize];
    stream.read_exact(&mut answer).await?;
    // The answer has the correlation id, the throttle time, one entry, and its error code.
    ensure!(
        answer[..14] == [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        "the quota is refused: {answer:?}"
    );
    Ok(())
}

/// Encodes a string as its length and its bytes.
fn string(text: &str) -> Vec<u8> {
    let length = size(text.len());
    [&length[2..], text.as_bytes()].concat()
}

fn size(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("a request is short")
        .to_be_bytes()
}
