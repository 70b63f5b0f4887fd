//! HTTPS under load. The server runs in a process of its own, so that its processor time and memory
//! are its alone; the load comes from this one, on the same machine.
//!
//! Run with `cargo bench --no-default-features --bench load`. Closed loops send as soon as they have
//! an answer; the open loop sends 1,000 a second whatever the answers do, and counts from the moment
//! at which a request was due. `HARBINGER_LOAD_SECONDS` is the time of each row, 5 if absent.

#![expect(clippy::print_stdout, reason = "the figures are the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts and shares of a benchmark"
)]

#[expect(dead_code, reason = "another benchmark needs the moment")]
#[path = "shared/payload.rs"]
mod payload;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use bytes::Bytes;
use harbinger::admission::{
    self, CertificateSource, FactsSource, Metrics, PemPair, Server, Settings,
};
use harbinger::certs;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set in the server's process.
const ROLE: &str = "HARBINGER_LOAD_SERVER";
const NAME: &str = "harbinger.ns.svc";
/// Requests of the open loop, a second.
const RATE: u64 = 1_000;
/// Workers of the open loop.
const OPEN: u64 = 64;
/// Streams of one HTTP/2 connection.
const STREAMS: usize = 16;
/// Ticks of processor time a second, as Linux counts them for everybody.
const TICKS: f64 = 100.0;

#[derive(Deserialize, Serialize)]
struct Hello {
    addr: SocketAddr,
    ca: String,
}

fn main() -> Result<()> {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if std::env::var_os(ROLE).is_some() {
        runtime.block_on(serve())
    } else {
        runtime.block_on(load())
    }
}

/// The webhook with ten policies, until standard input ends.
async fn serve() -> Result<()> {
    let made = certs::issue(&certs::Request::new("harbinger", "ns", jiff::Timestamp::now()))?;
    let pair = PemPair { certificate: made.certificate, key: made.key };
    let certificate = CertificateSource::Shared(Arc::new(ArcSwap::from_pointee(pair)));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let context = admission::Context {
        policies: Arc::new(ArcSwap::from_pointee(payload::snapshot())),
        facts: FactsSource::default(),
        synced: Arc::new(AtomicBool::new(true)),
        intents: None,
        tally: Arc::default(),
        metrics: Arc::new(Metrics::default()),
        render: Arc::new(String::new),
        clock: Arc::new(jiff::Timestamp::now),
    };
    let settings = Settings { drain_delay: Duration::ZERO, ..Settings::new(any, any, certificate) };
    let server = Server::bind(settings, context).await?;
    let hello = Hello { addr: server.addr(), ca: made.ca };
    println!("{}", serde_json::to_string(&hello)?);
    std::io::stdout().flush()?;
    let cancel = tokio_util::sync::CancellationToken::new();
    let end = cancel.clone();
    std::thread::spawn(move || {
        // Ends when the process that started us does.
        drop(std::io::stdin().lock().read_line(&mut String::new()));
        end.cancel();
    });
    server.run(cancel).await;
    Ok(())
}

/// The server's process.
struct Served {
    child: Child,
    hello: Hello,
    tls: TlsConnector,
    h2: TlsConnector,
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Served {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let hello: Hello = serde_json::from_str(&line)?;
        let tls = |alpn: &[u8]| -> Result<TlsConnector> {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(hello.ca.as_bytes())?)?;
            let config = rustls::ClientConfig::builder().with_root_certificates(roots);
            let mut config = config.with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        let (tls, h2) = (tls(b"http/1.1")?, tls(b"h2")?);
        Ok(Self { child, hello, tls, h2 })
    }

    /// Processor time of the server so far, seconds.
    fn cpu(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = text.rsplit_once(')').context("no stat")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / TICKS)
    }

    /// Resident memory of the server, MiB.
    fn memory(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).context("no amount")?.parse()?;
        Ok(kib / 1024.0)
    }

    async fn stream(
        &self,
        tls: &TlsConnector,
    ) -> Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
        let tcp = TcpStream::connect(self.hello.addr).await?;
        tcp.set_nodelay(true)?;
        Ok(TokioIo::new(tls.connect(ServerName::try_from(NAME)?, tcp).await?))
    }

    /// So many senders: a connection each, or with HTTP/2 one for sixteen.
    async fn senders(
        &self,
        count: usize,
        h2: bool,
        tasks: &mut JoinSet<()>,
    ) -> Result<Vec<Sender>> {
        let mut senders = Vec::with_capacity(count);
        while senders.len() < count {
            if h2 {
                let io = self.stream(&self.h2).await?;
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tasks.spawn(async move { drop(connection.await) });
                let room = STREAMS.min(count - senders.len());
                senders.extend((0..room).map(|_| Sender::Two(sender.clone())));
            } else {
                let (sender, connection) = http1::handshake(self.stream(&self.tls).await?).await?;
                tasks.spawn(async move { drop(connection.await) });
                senders.push(Sender::One(sender));
            }
        }
        Ok(senders)
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// One review; an answer that is not a patch is an error.
    async fn post(&mut self, body: Bytes) -> Result<()> {
        let request = hyper::Request::post(format!("https://{NAME}/mutate/pods?timeout=2s"))
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        ensure!(response.status() == 200, "{}", response.status());
        let answer = response.into_body().collect().await?.to_bytes();
        let patched = answer.windows(11).any(|part| part == b"\"JSONPatch\"");
        ensure!(patched, "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

/// When the requests of a row are sent.
#[derive(Clone, Copy)]
enum Pace {
    /// So many at a time, each as soon as the one before is answered.
    Closed(usize),
    /// [`RATE`] a second.
    Open,
}

async fn load() -> Result<()> {
    let seconds = std::env::var("HARBINGER_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(5));
    let served = Served::start()?;
    println!("at rest: {:.1} MiB", served.memory()?);
    println!(
        "{:>6} {:>8} {:>7} {:>9} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "body", "protocol", "load", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "µs cpu", "MiB"
    );
    for (size, bytes) in [("4KB", 4 << 10), ("60KB", 60 << 10)] {
        let body = Bytes::from(payload::review(&payload::pod(bytes, false)));
        for h2 in [false, true] {
            for pace in [Pace::Closed(1), Pace::Closed(16), Pace::Closed(64), Pace::Open] {
                // Once for the connections and the allocator, unmeasured.
                row(&served, &body, h2, pace, Duration::from_millis(500)).await?;
                let before = served.cpu()?;
                let start = Instant::now();
                let mut times = row(&served, &body, h2, pace, time).await?;
                let (took, cpu) = (start.elapsed().as_secs_f64(), served.cpu()? - before);
                times.sort_unstable();
                let count = times.len();
                let at = |share: f64| {
                    let index = ((count as f64) * share) as usize;
                    times[index.min(count - 1)].as_secs_f64() * 1e3
                };
                let name = match pace {
                    Pace::Closed(count) => format!("c{count}"),
                    Pace::Open => format!("{RATE}/s"),
                };
                println!(
                    "{size:>6} {:>8} {name:>7} {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>9.0} {:>7.1}",
                    if h2 { "HTTP/2" } else { "HTTP/1.1" },
                    count as f64 / took,
                    at(0.5),
                    at(0.99),
                    at(0.999),
                    cpu / count as f64 * 1e6,
                    served.memory()?,
                );
            }
        }
    }
    Ok(())
}

/// Sends for a time; gives how long each request took.
async fn row(
    served: &Served,
    body: &Bytes,
    h2: bool,
    pace: Pace,
    time: Duration,
) -> Result<Vec<Duration>> {
    let mut connections = JoinSet::new();
    let count = match pace {
        Pace::Closed(count) => count,
        Pace::Open => usize::try_from(OPEN)?,
    };
    let senders = served.senders(count, h2, &mut connections).await?;
    let mut workers: JoinSet<Result<Vec<Duration>>> = JoinSet::new();
    let begin = Instant::now();
    for (index, mut sender) in senders.into_iter().enumerate() {
        let body = body.clone();
        let index = u64::try_from(index)?;
        workers.spawn(async move {
            let mut times = Vec::new();
            let mut due = begin + Duration::from_micros(index * 1_000_000 / RATE);
            while begin.elapsed() < time {
                let mut start = Instant::now();
                if matches!(pace, Pace::Open) {
                    if start < due {
                        tokio::time::sleep_until(due.into()).await;
                        // The timer's own coarseness is not the server's.
                        start = Instant::now();
                    } else {
                        // The answer before came late: this one has waited already.
                        start = due;
                    }
                    due += Duration::from_micros(OPEN * 1_000_000 / RATE);
                }
                sender.post(body.clone()).await?;
                times.push(start.elapsed());
            }
            Ok(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = workers.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}
