//! Checks that a broker is available. The check uses Kafka's own protocol, because a broker accepts connections long
//! before it serves.

use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const LIMIT: Duration = Duration::from_millis(500);
const CORRELATION_ID: [u8; 4] = *b"saga";
/// The request: length 10, ApiVersions (18) version 0, the correlation id, no client id.
const REQUEST: [u8; 14] = [
    0,
    0,
    0,
    10,
    0,
    18,
    0,
    0,
    CORRELATION_ID[0],
    CORRELATION_ID[1],
    CORRELATION_ID[2],
    CORRELATION_ID[3],
    0xff,
    0xff,
];

/// Returns true if the broker on this port of loopback serves.
pub async fn answers(port: u16) -> bool {
    timeout(LIMIT, ask(port))
        .await
        .is_ok_and(|answer| answer.unwrap_or(false))
}

async fn ask(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(&REQUEST).await?;
    // The answer begins with length, correlation id and error code.
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    Ok(answer[4..8] == CORRELATION_ID && answer[8..] == [0, 0])
}
