//! A Service with several endpoints, as kube-proxy plays it: new connections go to the endpoints in
//! turn, and those that there are stay where they are until one side ends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A listening Service; it ends, with its connections, when dropped.
pub struct Service {
    endpoints: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Service {
    /// Listens on `address`, for nobody yet.
    pub async fn listen(address: &str) -> Result<Self> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        let endpoints: Arc<Mutex<Vec<String>>> = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&endpoints)));
        Ok(Self { endpoints, task })
    }

    /// Lets new connections go to this address too.
    pub fn add(&self, endpoint: &str) {
        self.endpoints.lock().push(endpoint.to_owned());
    }

    /// Sends no more connections to this address.
    pub fn remove(&self, endpoint: &str) {
        self.endpoints.lock().retain(|other| other != endpoint);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, endpoints: Arc<Mutex<Vec<String>>>) {
    let turn = AtomicUsize::default();
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let endpoint = {
            let endpoints = endpoints.lock();
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            endpoints.get(turn % endpoints.len().max(1)).cloned()
        };
        // Without an endpoint, or with one that refuses, the client sees its connection end.
        let Some(endpoint) = endpoint else { continue };
        connections.spawn(carry(stream, endpoint));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(mut client: TcpStream, endpoint: String) {
    match TcpStream::connect(&endpoint).await {
        Ok(mut server) => {
            let carried = copy_bidirectional(&mut client, &mut server).await;
            tracing::debug!(endpoint, ?carried, "connection ended");
        }
        Err(error) => tracing::debug!(endpoint, %error, "endpoint refuses"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers each connection with a letter.
    async fn server(letter: u8) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(&[letter]).await.unwrap();
            }
        });
        address
    }

    async fn ask(address: &str) -> Option<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.read_u8().await.ok()
    }

    #[tokio::test]
    async fn connections_go_to_the_endpoints_in_turn() {
        let port = crate::ports::free(1).unwrap()[0];
        let address = format!("127.0.0.1:{port}");
        let service = Service::listen(&address).await.unwrap();
        assert_eq!(ask(&address).await, None);
        let (a, b) = (server(b'a').await, server(b'b').await);
        service.add(&a);
        service.add(&b);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.extend(ask(&address).await);
        }
        seen.sort_unstable();
        assert_eq!(seen, b"aabb");
        service.remove(&a);
        for _ in 0..3 {
            assert_eq!(ask(&address).await, Some(b'b'));
        }
    }
}
