//! Shedding load before it sinks the service: for each kind of work a number that runs at once, a queue of bounded length, a
//! bounded wait in it; beyond them 503 with `Retry-After`, at once and cheaply.
//!
//! Each kind has its own gate, so a flood of one does not take another's places, in one process as in several; and an
//! editor's write waits for no more writes of viewers than their gates let through.
//!
//! Waiting for what happens elsewhere is work of its own kind, which takes no place of what the database is asked for.
//!
//! A body is read before a place is taken, within a bound of its own: a client that sends slowly holds up nobody but itself. For all
//! bodies together there is room for so many bytes.
//!
//! tower's ConcurrencyLimit queues without bound and its LoadShed refuses without a queue; the two semaphores here do both.
use super::App;
use super::error::{ApiError, problem_response};
use super::extract::received;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use kv_schemas::Problem;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one gate lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub at_once: usize,
    pub waiting: usize,
    pub wait_ms: u64,
}

impl Bounds {
    const fn new(at_once: usize, waiting: usize, wait_ms: u64) -> Self {
        Self { at_once, waiting, wait_ms }
    }
}

/// Kinds of work, one gate each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    ClientRead,
    /// Searches that were not rendered before: what is misspelt costs a hundred times what other reads do, and fewer run at once than
    /// there are connections for reads, so that a flood of them leaves some to everybody else.
    Search,
    ClientWrite,
    Auth,
    AdminRead,
    AdminWrite,
    /// Receipts that are waited for: seconds each, most of them asleep.
    AdminWait,
}

impl Work {
    pub const ALL: [Self; 7] = [
        Self::ClientRead,
        Self::Search,
        Self::ClientWrite,
        Self::Auth,
        Self::AdminRead,
        Self::AdminWrite,
        Self::AdminWait,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientRead => "client-read",
            Self::Search => "search",
            Self::ClientWrite => "client-write",
            Self::Auth => "auth",
            Self::AdminRead => "admin-read",
            Self::AdminWrite => "admin-write",
            Self::AdminWait => "admin-wait",
        }
    }

    fn default_bounds(self) -> Bounds {
        match self {
            Self::ClientRead => Bounds::new(64, 256, 1_000),
            Self::Search => Bounds::new(3, 256, 1_000),
            Self::ClientWrite => Bounds::new(16, 128, 1_000),
            Self::Auth => Bounds::new(48, 64, 2_000),
            Self::AdminRead => Bounds::new(16, 64, 2_000),
            Self::AdminWrite => Bounds::new(8, 64, 5_000),
            Self::AdminWait => Bounds::new(64, 0, 0),
        }
    }
}

/// `<work>=<at once>/<waiting>/<wait in ms>`, as the command line takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Work, pub Bounds);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            let names = Work::ALL.map(Work::as_str).join(", ");
            format!(
                "expected <work>=<at once>/<waiting>/<wait in ms>, such as client-read=64/256/1000; work is one of {names}"
            )
        };
        let (name, bounds) = text.split_once('=').ok_or_else(form)?;
        let work = Work::ALL.into_iter().find(|work| work.as_str() == name).ok_or_else(form)?;
        let mut parts = bounds.split('/').map(str::parse::<u64>);
        let (Some(Ok(at_once)), Some(Ok(waiting)), Some(Ok(wait_ms)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(form());
        };
        if !(1..=100_000).contains(&at_once) || waiting > 100_000 || wait_ms > 10_000 {
            return Err("at once must be 1 to 100000, waiting at most 100000, the wait at most 10000 ms".into());
        }
        let count = |n: u64| usize::try_from(n).unwrap_or(1);
        Ok(Self(work, Bounds::new(count(at_once), count(waiting), wait_ms)))
    }
}

struct Gate {
    work: Work,
    wait: Duration,
    /// Places at work, and places at work or in the queue.
    running: Arc<Semaphore>,
    inside: Arc<Semaphore>,
}

/// Held while a request is at work.
struct Pass {
    _running: OwnedSemaphorePermit,
    _inside: OwnedSemaphorePermit,
}

impl Gate {
    fn new(work: Work, bounds: Bounds) -> Self {
        Self {
            work,
            wait: Duration::from_millis(bounds.wait_ms),
            running: Arc::new(Semaphore::new(bounds.at_once)),
            inside: Arc::new(Semaphore::new(bounds.at_once.saturating_add(bounds.waiting))),
        }
    }

    async fn enter(&self) -> Option<Pass> {
        let inside = Arc::clone(&self.inside).try_acquire_owned().ok()?;
        let running = tokio::time::timeout(self.wait, Arc::clone(&self.running).acquire_owned()).await;
        Some(Pass { _running: running.ok()?.ok()?, _inside: inside })
    }
}

/// KiB of bodies that are under way, wait for their place or are at work, for all requests of a process.
const BODIES_KIB: usize = 64 * 1024;

/// All gates of a process, and its room for bodies.
pub struct Gates {
    gates: [Gate; Work::ALL.len()],
    bodies: Arc<Semaphore>,
}

fn overloaded(work: Work) -> Problem {
    metrics::counter!("origin_shed_total", "work" => work.as_str()).increment(1);
    Problem::new(503, "overloaded", "The service has more to do than it can; try again in a moment")
}

impl Gates {
    pub fn new(limits: &[Limit]) -> Self {
        let gates = Work::ALL.map(|work| {
            let set = limits.iter().rev().find(|Limit(of, _)| *of == work);
            Gate::new(work, set.map_or_else(|| work.default_bounds(), |Limit(_, bounds)| *bounds))
        });
        Self { gates, bodies: Arc::new(Semaphore::new(BODIES_KIB)) }
    }

    fn of(&self, work: Work) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.work == work)
    }

    /// A place at this work, or the refusal. `None`: nothing bounds it.
    async fn enter(&self, work: Work) -> Result<Option<Pass>, Problem> {
        let Some(gate) = self.of(work) else { return Ok(None) };
        if let Some(pass) = gate.enter().await {
            return Ok(Some(pass));
        }
        Err(overloaded(work))
    }

    /// Room for so many bytes of a body that is read for this work, beside what it has: counted as a whole, since pieces of a byte
    /// each would otherwise take a KiB each.
    fn make_room(&self, work: Work, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let kib = u32::try_from(bytes.div_ceil(1024).saturating_sub(has)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(kib).map_err(|_| overloaded(work))?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self::new(&[])
    }
}

/// The gates of a group of routes: for what only reads, and for what writes.
#[derive(Clone)]
pub struct Door {
    pub gates: Arc<Gates>,
    pub read: Work,
    pub write: Work,
    /// Of the longest body any of its routes takes.
    pub body_bytes_max: usize,
}

/// Where a request is at work; among its extensions.
#[derive(Clone)]
pub struct Place(Arc<Placed>);

struct Placed {
    gates: Arc<Gates>,
    came: Instant,
    pass: Mutex<Option<Pass>>,
}

impl Place {
    /// When the request came, before it waited for its place.
    pub fn came(&self) -> Instant {
        self.0.came
    }

    fn hold(&self, pass: Option<Pass>) {
        *self.0.pass.lock().unwrap_or_else(PoisonError::into_inner) = pass;
    }

    /// Leaves this place to others, and only then waits for one at another kind of work.
    pub async fn move_to(&self, work: Work) -> Result<(), Problem> {
        self.hold(None);
        self.hold(self.0.gates.enter(work).await?);
        Ok(())
    }
}

/// A request whose work is a search from here on. To be asked for before what is to wait for it, such as a connection.
pub struct Searching;

impl FromRequestParts<App> for Searching {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        if let Some(place) = parts.extensions.get::<Place>().cloned() {
            place.move_to(Work::Search).await?;
        }
        Ok(Self)
    }
}

/// Lets a request through its gate, or refuses it.
pub async fn shed(State(door): State<Door>, request: Request, next: Next) -> Response {
    let came = Instant::now();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let work = if reads { door.read } else { door.write };
    // What only reads has no body here; whatever is sent is not looked at.
    let mut held = None;
    let room = |bytes| door.gates.make_room(work, &mut held, bytes);
    let mut request = match reads {
        true => request,
        false => match received(request, door.body_bytes_max, room).await {
            Ok(request) => request,
            Err(problem) => return problem_response(&problem),
        },
    };
    let pass = match door.gates.enter(work).await {
        Ok(pass) => Mutex::new(pass),
        Err(problem) => return problem_response(&problem),
    };
    let place = Place(Arc::new(Placed { gates: door.gates, came, pass }));
    // This one keeps it until there is an answer.
    request.extensions_mut().insert(place.clone());
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn limits_are_read_or_refused_with_the_form() {
        assert_eq!("admin-write=4/8/100".parse(), Ok(Limit(Work::AdminWrite, Bounds::new(4, 8, 100))));
        for bad in ["", "admin=1/1/1", "auth=0/1/1", "auth=1/1", "auth=1/1/1/1", "auth=1/x/1", "auth=1/1/99999", "auth"]
        {
            assert!(bad.parse::<Limit>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn some_run_some_wait_for_a_while_and_the_rest_is_refused_at_once() {
        let gates = Gates::new(&["auth=2/3/1000".parse().unwrap()]);
        let gate = gates.of(Work::Auth).unwrap();
        let running = [gate.enter().await.unwrap(), gate.enter().await.unwrap()];
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(gate.enter())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(gate.enter().await.is_none(), "the queue is full");
        drop(running);
        let mut last = waiting.pop().unwrap();
        let got: Vec<_> = futures_util::future::join_all(waiting).await;
        assert!(got.iter().all(Option::is_some), "places that come free are taken in order");
        assert!(last.as_mut().now_or_never().is_none());
        assert!(last.await.is_none(), "a second is enough");
        drop(got);
        assert!(gate.enter().await.is_some());
        assert!(gates.of(Work::AdminWrite).unwrap().enter().await.is_some());
    }
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_another_kind_of_work_holds_up_nobody_at_the_one_it_left() {
        let limits = ["client-read=1/0/0", "search=1/1/1000"].map(|limit| limit.parse().unwrap());
        let gates = Arc::new(Gates::new(&limits));
        let come = async || {
            let pass = Mutex::new(gates.enter(Work::ClientRead).await.unwrap());
            Place(Arc::new(Placed { gates: Arc::clone(&gates), came: Instant::now(), pass }))
        };
        let first = come().await;
        first.move_to(Work::Search).await.unwrap();
        let second = come().await;
        let mut waits = Box::pin(second.move_to(Work::Search));
        assert!(waits.as_mut().now_or_never().is_none());
        let third = come().await;
        assert!(third.move_to(Work::Search).await.is_err(), "one waits already");
        drop(first);
        waits.await.unwrap();
    }
}
