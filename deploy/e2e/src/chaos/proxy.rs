//! A connection that can be cut, stopped and slowed: a TCP proxy between two parts of the system.

use anyhow::Result;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// One read; what is delayed is delayed by as much.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the network does between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Every chunk comes so much later, in both directions.
    Slow(Duration),
    /// Nothing arrives, and nobody is told.
    Silent,
    /// Connections are closed, and new ones too.
    Cut,
}

/// See the module. Lives until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    weather: watch::Sender<Weather>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback.
    pub async fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let target = SocketAddr::from(([127, 0, 0, 1], target));
        let (weather, forecast) = watch::channel(Weather::Fair);
        let accepting = tokio::spawn(accept(listener, target, forecast));
        Ok(Self {
            port,
            weather,
            accepting,
        })
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, weather: watch::Receiver<Weather>) {
    // Aborting this task drops the set, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Without a descriptor to spare the next try may find one.
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(connection(client, target, weather.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut weather: watch::Receiver<Weather>) {
    if *weather.borrow_and_update() == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Neither end is to be slower than it would be without us.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (weather.clone(), weather.clone());
    tokio::select! {
        () = pump(from_client, to_server, there) => {}
        () = pump(from_server, to_client, back) => {}
        () = cut(&mut weather) => {}
    }
}

async fn cut(weather: &mut watch::Receiver<Weather>) {
    // The sender lives as long as the proxy; without it there is nobody to go on for.
    let _cut_or_gone = weather.wait_for(|weather| *weather == Weather::Cut).await;
}

/// Returns at the end of the stream, in either sense.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let delay = delay(&mut weather).await;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits while nothing arrives; how much later the next chunk is to come.
async fn delay(weather: &mut watch::Receiver<Weather>) -> Duration {
    let now = weather
        .wait_for(|weather| *weather != Weather::Silent)
        .await;
    match now.as_deref() {
        Ok(Weather::Slow(delay)) => *delay,
        Ok(Weather::Fair | Weather::Silent | Weather::Cut) | Err(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    /// Sends back whatever comes.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        port
    }

    async fn say(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"hello").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"hello");
        Ok(())
    }

    #[tokio::test]
    async fn passes_on_and_is_slow_when_told() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.set(Weather::Slow(Duration::from_millis(50)));
        let began = Instant::now();
        say(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn silence_holds_what_was_said_and_gives_it_later() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.set(Weather::Silent);
        let mut waiting = Box::pin(say(&mut stream));
        let heard = timeout(Duration::from_millis(100), &mut waiting).await;
        assert!(heard.is_err());
        proxy.set(Weather::Fair);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_refuses_new_ones() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut old = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut old).await.unwrap();
        proxy.set(Weather::Cut);
        assert!(say(&mut old).await.is_err());
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        assert!(say(&mut new).await.is_err());
        proxy.set(Weather::Fair);
        let mut again = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut again).await.unwrap();
    }
}
