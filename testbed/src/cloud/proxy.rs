//! The proxy between a client of AWS and moto: faults, market, ClientToken memory, journal.
//!
//! A request is carried out to its end even when its client goes away, as at EC2: a client that is
//! killed in mid-call finds its instance launched.

mod errors;
mod token;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, JoinSet};

use self::errors::{accepted, error, throttled};
use super::call::Call;
use super::canned::{self, Cluster};
use super::client::AwsClient;
use super::fleet::Fleet;
use super::journal::{Entry, Journal};
use super::market::{Market, Pool};
use super::moto::Catalog;
use super::reservations::Reservations;
use super::rules::{Effect, Rules};
use super::xml::Element;
use crate::http::{self, Reply};

/// What happened to instances.
#[derive(Clone, Debug)]
pub enum Event {
    Launched { instance_ids: Vec<String>, at: Instant },
    Terminated { instance_ids: Vec<String> },
}

/// A request that was carried out.
#[derive(Default)]
pub(super) struct Carried {
    pub(super) reply: Reply,
    pub(super) launched: Vec<String>,
    pub(super) terminated: Vec<String>,
    pub(super) replayed: bool,
}

impl From<Reply> for Carried {
    fn from(reply: Reply) -> Self {
        Self { reply, ..Self::default() }
    }
}

/// A running proxy for one account.
pub struct Proxy {
    inner: Arc<Inner>,
    url: String,
    accept: JoinHandle<()>,
}

pub(super) struct Inner {
    moto: AwsClient,
    pub(super) market: Mutex<Market>,
    pub(super) rules: Mutex<Rules>,
    pub(super) reservations: Mutex<Reservations>,
    journal: Journal,
    cluster: Mutex<Option<Cluster>>,
    tokens: token::Memory,
    catalog: Arc<Catalog>,
    /// Zone of each subnet seen so far.
    zones: Mutex<BTreeMap<String, String>>,
    listeners: Mutex<Vec<UnboundedSender<Event>>>,
    empty_fleets: AtomicU32,
}

impl Proxy {
    /// Starts a proxy on a free port. It lives on the runtime of the caller.
    pub(super) async fn start(moto: AwsClient, catalog: Arc<Catalog>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            moto,
            market: Mutex::default(),
            rules: Mutex::default(),
            reservations: Mutex::default(),
            journal: Journal::default(),
            cluster: Mutex::default(),
            tokens: token::Memory::default(),
            catalog,
            zones: Mutex::default(),
            listeners: Mutex::default(),
            empty_fleets: AtomicU32::default(),
        });
        let accept = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Ok(Self { inner, url, accept })
    }

    /// The endpoint for every AWS service.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Prices and capacity, to look at or change.
    pub fn market(&self) -> parking_lot::MutexGuard<'_, Market> {
        self.inner.market.lock()
    }

    /// Faults, to add to or clear.
    pub fn rules(&self) -> parking_lot::MutexGuard<'_, Rules> {
        self.inner.rules.lock()
    }

    /// Capacity reservations, to look at or change.
    pub fn reservations(&self) -> parking_lot::MutexGuard<'_, Reservations> {
        self.inner.reservations.lock()
    }

    /// What was asked so far.
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Answers `eks:DescribeCluster`.
    pub fn set_cluster(&self, cluster: Cluster) {
        *self.inner.cluster.lock() = Some(cluster);
    }

    /// Launches and terminations from now on.
    pub fn events(&self) -> UnboundedReceiver<Event> {
        let (sender, receiver) = unbounded_channel();
        self.inner.listeners.lock().push(sender);
        receiver
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Serves until aborted; its connections end with it.
async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    loop {
        // An accept can only fail for the connection at hand.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let inner = Arc::clone(&inner);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&inner), request));
            let server = hyper::server::conn::http1::Builder::new();
            // An error here is a connection that was cut, by a rule or by the client.
            server.serve_connection(TokioIo::new(stream), service).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

/// An error cuts the connection without an answer.
async fn answer(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let at = Instant::now();
    let (parts, body) = request.into_parts();
    let call = Call::parse(parts, body.collect().await?.to_bytes());
    // A task of its own: hyper drops this future when the client goes away.
    let play = async move {
        inner.play(&call, at).await.inspect_err(|error| inner.journal.broke(&call, error))
    };
    let reply = tokio::spawn(play).await??;
    let reply = reply.context("connection cut by a rule")?;
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status.try_into()?;
    *response.headers_mut() = reply.headers;
    response.headers_mut().remove(TRANSFER_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(hyper::header::CONNECTION);
    Ok(response)
}

impl Inner {
    /// Applies the rules, carries the request out and writes the journal. No answer: cut the line.
    async fn play(&self, call: &Call, at: Instant) -> Result<Option<Reply>> {
        let fleet = match call.action.as_str() {
            "CreateFleet" => Fleet::read(call, self).await?,
            _ => None,
        };
        let pools: Vec<Pool> = fleet.as_ref().map(Fleet::pools).unwrap_or_default();
        let (delay, effect) =
            self.rules.lock().hit(&call.action, call.param("DryRun") == "true", &pools);
        tokio::time::sleep(delay).await;
        let (carried, answered) = match effect {
            None | Some(Effect::Delay(_) | Effect::InsufficientCapacity) => {
                (self.carry_out(call, fleet).await?, true)
            }
            Some(Effect::LoseAnswer) => (self.carry_out(call, fleet).await?, false),
            Some(Effect::LoseRequest) => (Carried::default(), false),
            Some(Effect::Accept) => (Carried::from(accepted(&call.action)), true),
            Some(Effect::Throttle) => (Carried::from(throttled(&call.service)), true),
            Some(Effect::Error { status, code, message }) => {
                (Carried::from(error(&call.service, status, &code, &message)), true)
            }
        };
        self.journal.inspect(call, &carried.reply);
        let instance_ids = [&carried.launched[..], &carried.terminated[..]].concat();
        self.journal.record(Entry {
            at,
            took: at.elapsed(),
            service: call.service.clone(),
            action: call.action.clone(),
            params: call.params.clone(),
            json: call.json.clone(),
            status: if answered { carried.reply.status } else { 0 },
            replayed: carried.replayed,
            instance_ids,
        });
        if !carried.replayed {
            self.tell(&carried);
        }
        Ok(answered.then_some(carried.reply))
    }

    async fn carry_out(&self, call: &Call, fleet: Option<Fleet>) -> Result<Carried> {
        let token = call.param("ClientToken");
        if token.is_empty() {
            return self.dispatch(call, fleet).await;
        }
        self.tokens.once(call, || self.dispatch(call, fleet)).await
    }

    async fn dispatch(&self, call: &Call, fleet: Option<Fleet>) -> Result<Carried> {
        if let Some(fleet) = fleet {
            return fleet.launch(call, self).await;
        }
        if call.action == "DescribeCapacityReservations" {
            return Ok(self.reservations.lock().describe(call).into());
        }
        self.reservations.lock().note(call);
        let cluster = self.cluster.lock().clone();
        let canned =
            canned::answer(call, &self.market.lock(), self.moto.region(), cluster.as_ref());
        if let Some(reply) = canned {
            return Ok(reply.into());
        }
        if let Some(reply) = self.catalog.get(self.moto.region(), call) {
            return Ok(reply.into());
        }
        let reply = self.forward(call, None).await?;
        self.catalog.keep(self.moto.region(), call, &reply);
        let mut carried = Carried::from(reply);
        if carried.reply.status == 200 {
            match call.action.as_str() {
                "RunInstances" | "CreateFleet" => carried.launched = ids(&carried.reply)?,
                "TerminateInstances" => carried.terminated = ids(&carried.reply)?,
                _ => {}
            }
        }
        Ok(carried)
    }

    /// Sends the request on to moto, with another form body if one is given.
    pub(super) async fn forward(&self, call: &Call, body: Option<Bytes>) -> Result<Reply> {
        let uri = format!("{}{}", self.moto.url(), call.path_and_query);
        let body = body.unwrap_or_else(|| call.body.clone());
        let mut request =
            Request::builder().method(call.method.clone()).uri(uri).body(Full::new(body))?;
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().remove(CONTENT_LENGTH);
        request.headers_mut().remove(TRANSFER_ENCODING);
        let account = HeaderValue::from_str(self.moto.account())?;
        request.headers_mut().insert("x-moto-account-id", account);
        http::send(request).await
    }

    /// Zone of a subnet; empty when there is no such subnet.
    pub(super) async fn zone_of(&self, subnet: &str) -> Result<String> {
        if let Some(zone) = self.zones.lock().get(subnet) {
            return Ok(zone.clone());
        }
        let answer = self.moto.query("ec2", "DescribeSubnets", &[]).await?;
        let mut zones = self.zones.lock();
        zones.extend(answer.items("subnetSet").iter().map(|item| {
            (item.text_at("subnetId").to_owned(), item.text_at("availabilityZone").to_owned())
        }));
        Ok(zones.get(subnet).cloned().unwrap_or_default())
    }

    /// EC2 gives an id to a fleet that launched nothing, too.
    pub(super) fn made_up_fleet_id(&self) -> String {
        let number = self.empty_fleets.fetch_add(1, Ordering::Relaxed);
        format!("fleet-00000000-0000-0000-0000-{number:012}")
    }

    fn tell(&self, carried: &Carried) {
        let mut events = Vec::new();
        if !carried.launched.is_empty() {
            let instance_ids = carried.launched.clone();
            events.push(Event::Launched { instance_ids, at: Instant::now() });
        }
        if !carried.terminated.is_empty() {
            let mut market = self.market.lock();
            carried.terminated.iter().for_each(|id| market.give_back(id));
            let mut reservations = self.reservations.lock();
            carried.terminated.iter().for_each(|id| reservations.give_back(id));
            events.push(Event::Terminated { instance_ids: carried.terminated.clone() });
        }
        for event in events {
            self.listeners.lock().retain(|listener| listener.send(event.clone()).is_ok());
        }
    }
}

/// Instance ids anywhere in an answer.
fn ids(reply: &Reply) -> Result<Vec<String>> {
    fn collect(element: &Element, into: &mut Vec<String>) {
        let id = matches!(element.name.as_str(), "instanceId" | "item")
            && element.text.starts_with("i-");
        if id {
            into.push(element.text.clone());
        }
        element.children.iter().for_each(|child| collect(child, into));
    }
    let mut all = Vec::new();
    collect(&Element::parse(&reply.text())?, &mut all);
    Ok(all)
}
