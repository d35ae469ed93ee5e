//! A TCP proxy between two parts of the system. Its connections can be cut, held and slowed.

use anyhow::{Context, Result};
use std::{future::pending, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Size of one read. Each chunk is delayed as a whole.
const CHUNK_BYTES: usize = 64 * 1024;

/// The state of the network between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Every chunk is delayed by this time, in both directions.
    Slow(Duration),
    /// No data arrives, and no connection is closed.
    Silent,
    /// Connections are closed, including new ones.
    Cut,
}

/// The delay after which the server learns that a client has closed a forgotten connection.
const FORGOTTEN_FOR: Duration = Duration::from_mins(1);

/// A running proxy. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    weather: watch::Sender<Weather>,
    /// Counts how often connections were forgotten. A connection that is older than the last time passes no data on.
    forgotten: watch::Sender<u64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy to the port `target`, on a free port of loopback.
    pub async fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let target = SocketAddr::from(([127, 0, 0, 1], target));
        let (weather, forecast) = watch::channel(Weather::Fair);
        let (forgotten, forgets) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, target, forecast, forgets));
        Ok(Self {
            port,
            weather,
            forgotten,
            accepting,
        })
    }

    /// Starts a proxy to the server of a URL on this machine. Returns the proxy, and the URL with the proxy's port in
    /// it.
    pub async fn before(url: &str) -> Result<(Self, String)> {
        let (before, rest) = url.rsplit_once(':').context("no port")?;
        let (port, after) = rest.split_once('/').context("no path")?;
        let proxy = Self::start(port.parse()?).await?;
        let through = format!("{before}:{}/{after}", proxy.port);
        Ok((proxy, through))
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Forgets the current connections, as a firewall does: they pass no data on, are not closed, and stay so. New
    /// connections work.
    pub fn forget(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    forgotten: watch::Receiver<u64>,
) {
    // Aborting this task drops the set, which ends the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Accepting fails if no file descriptor is left; the next attempt may succeed.
                let Ok((client, _)) = accepted else { continue };
                let forgotten = forgotten.clone();
                connections.spawn(connection(client, target, weather.clone(), forgotten));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    client: TcpStream,
    target: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    mut forgotten: watch::Receiver<u64>,
) {
    forgotten.mark_unchanged();
    if *weather.borrow_and_update() == Weather::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // The proxy must not slow down either end.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (there, back) = (weather.clone(), weather.clone());
    tokio::select! {
        () = pump(&mut from_client, &mut to_server, there) => {}
        () = pump(&mut from_server, &mut to_client, back) => {}
        () = cut(&mut weather) => {}
        // The sender is gone once the proxy is dropped; then this task ends, too.
        _ = forgotten.changed() => tokio::select! {
            () = swallow(&mut from_client) => tokio::time::sleep(FORGOTTEN_FOR).await,
            // The end of the server's stream is not passed on to the client.
            () = async { swallow(&mut from_server).await; pending().await } => {}
        }
    }
}

/// Reads and drops data until the end of the stream.
async fn swallow(from: &mut OwnedReadHalf) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(1..) = from.read(&mut chunk).await {}
}

async fn cut(weather: &mut watch::Receiver<Weather>) {
    // The sender lives as long as the proxy. Without a proxy the connection ends.
    let _cut_or_gone = weather.wait_for(|weather| *weather == Weather::Cut).await;
}

/// Copies data until one of the two streams ends.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
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

/// Waits while the network is silent, and returns the delay of the next chunk.
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

    /// Starts a server that sends all data back.
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
    async fn a_proxy_forwards_and_delays_on_request() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut stream).await.unwrap();
        proxy.set(Weather::Slow(Duration::from_millis(50)));
        let began = Instant::now();
        say(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_silent_proxy_holds_bytes_back_and_delivers_them_later() {
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
    async fn a_forgotten_connection_stays_silent_and_new_connections_work() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut old = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut old).await.unwrap();
        proxy.forget();
        let heard = timeout(Duration::from_millis(100), say(&mut old)).await;
        assert!(heard.is_err(), "neither an answer nor an end");
        let mut new = TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap();
        say(&mut new).await.unwrap();
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
