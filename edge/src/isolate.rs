//! What an isolate keeps between requests: plain data behind one cell, borrowed for the length of a closure only.
//!
//! A closure here must not await and must not call back into JavaScript code that could re-enter the Worker.
use crate::exposition::Durations;
use crate::hits::{Begun, MadeReady, Ready};
use crate::identity::Identities;
use crate::invalidate::Owed;
use crate::js;
use crate::settings::Settings;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use surrogate_cache::hits::State;
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::{Engine, Phase, Reason};
use worker::Env;

pub use platform::now_ms;

/// A body as JavaScript holds it: never copied into the Wasm memory. With it lies what an answer with it is made of, so
/// that both go when the entry does.
pub struct Body {
    pub bytes: js_sys::Uint8Array,
    pub ready: RefCell<Option<Ready>>,
    /// The same for who bears a token.
    pub ready_private: RefCell<Option<Ready>>,
}

impl Body {
    pub fn new(bytes: js_sys::Uint8Array) -> Self {
        Self { bytes, ready: RefCell::new(None), ready_private: RefCell::new(None) }
    }

    /// Lets go of what was made ready and is over.
    pub fn let_go(&self, now_ms: u64) {
        for place in [&self.ready, &self.ready_private] {
            if let Ok(mut place) = place.try_borrow_mut() {
                place.take_if(|ready| !ready.is_good(now_ms));
            }
        }
    }
}

/// The bytes alone: what was made ready belongs to one entry, and a copy is for another.
impl Clone for Body {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone())
    }
}

/// The body of what has none.
impl Default for Body {
    fn default() -> Self {
        Self::new(js_sys::Uint8Array::new_with_length(0))
    }
}

pub struct Isolate {
    pub settings: Rc<Settings>,
    pub engine: Engine<Body>,
    /// Who has shown a good token, and the keys that verify them.
    pub identities: Identities,
    /// Random: tells this isolate's figures from others'.
    pub number: u64,
    /// Answers by phase, those to members of a batch among them.
    pub answers: [u64; Phase::ALL.len()],
    /// How long clients waited for the heads of their answers, by phase; a batch is one answer here.
    pub durations: [Durations; Phase::ALL.len()],
    /// Those that had a reason, and those that were forwarded and not stored, by phase and reason. A plain hit has neither, so
    /// the short way does not come by here.
    pub reasons: Reasons,
    pub unstored: Reasons,
    /// Hits that took the short way (`hits`).
    pub ready_hits: u64,
    /// The state JavaScript was told of last.
    told: State,
    /// Requests that read KV first.
    pub begun: Begun,
    pub made_ready: MadeReady,
    /// How the answer counted last came to be ([`take_last`]).
    pub last: Option<CacheStatus>,
    pub purges_refused: u64,
    /// Purges of writes that the journal could not take yet.
    pub owed: Vec<Owed>,
    /// Times the journal was asked, and times what it told a neighbour was enough.
    pub syncs_itself: u64,
    pub syncs_neighbour: u64,
}

/// What JavaScript reads of the isolate without a call: how often what hits hang on has changed; of the hit told last, for
/// how many milliseconds it may be answered again; the number of the request begun last.
static TOLD: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// Where that lies in the Wasm's memory.
pub fn told_at() -> u32 {
    // Addresses have 32 bits there.
    u32::try_from(std::ptr::from_ref(&TOLD).addr()).unwrap_or(0)
}

pub fn tell_holds(ms: u64) {
    TOLD[1].store(u32::try_from(ms).unwrap_or(u32::MAX), Relaxed);
}

pub fn tell_begun(number: u32) {
    TOLD[2].store(number, Relaxed);
}

thread_local! {
    static ISOLATE: RefCell<Option<Isolate>> = const { RefCell::new(None) };
}

/// Why the isolate cannot serve.
pub enum IsolateError {
    /// The operator's settings are wrong; the text is for the log.
    Settings(String),
    /// The cell is borrowed: a closure broke the rule above.
    Busy,
}

/// Makes the isolate ready and returns its settings.
pub fn start(env: &Env) -> Result<Rc<Settings>, IsolateError> {
    ISOLATE.with(|cell| {
        let mut slot = cell.try_borrow_mut().map_err(|_| IsolateError::Busy)?;
        if let Some(isolate) = slot.as_ref() {
            return Ok(Rc::clone(&isolate.settings));
        }
        let settings = Rc::new(Settings::read(env).map_err(IsolateError::Settings)?);
        let engine = Engine::new(settings.engine.clone());
        *slot = Some(Isolate {
            settings: Rc::clone(&settings),
            told: engine.state(),
            begun: Begun::default(),
            made_ready: MadeReady::default(),
            engine,
            identities: Identities::default(),
            number: js::random(),
            answers: [0; Phase::ALL.len()],
            durations: Default::default(),
            reasons: Reasons::new(),
            unstored: Reasons::new(),
            ready_hits: 0,
            last: None,
            purges_refused: 0,
            owed: Vec::new(),
            syncs_itself: 0,
            syncs_neighbour: 0,
        });
        Ok(settings)
    })
}

/// Runs `work` on the isolate; `None` before [`start`].
pub fn with<T>(work: impl FnOnce(&mut Isolate) -> T) -> Option<T> {
    ISOLATE.with(|cell| {
        let mut slot = cell.try_borrow_mut().ok()?;
        let isolate = slot.as_mut()?;
        let done = work(isolate);
        isolate.tell_changes();
        Some(done)
    })
}

/// Counts of what there was: some dozens at the most.
pub type Reasons = Vec<(Phase, Reason, u64)>;

#[inline(never)]
fn count_reason(reasons: &mut Reasons, phase: Phase, reason: Option<Reason>) {
    let Some(reason) = reason else { return };
    match reasons.iter_mut().find(|one| (one.0, one.1) == (phase, reason)) {
        Some((_, _, count)) => *count = count.saturating_add(1),
        None => reasons.push((phase, reason, 1)),
    }
}

/// How the answer counted last came to be, for whoever sends it on: to be taken in the turn in which it was counted, since others
/// count theirs afterwards.
pub fn take_last() -> Option<CacheStatus> {
    with(|isolate| isolate.last.take()).flatten()
}

/// Counts an answer.
pub fn count(status: &CacheStatus) {
    with(|isolate| {
        isolate.last = Some(status.clone());
        isolate.count_phases(status.phase, 1);
        count_reason(&mut isolate.reasons, status.phase, status.reason);
        count_reason(&mut isolate.unstored, status.phase, status.stored.and_then(Result::err));
    });
}

impl Isolate {
    /// Whatever has changed what hits hang on, it has come by here: nothing else lets anybody at the engine.
    #[inline(never)]
    fn tell_changes(&mut self) {
        let state = self.engine.state();
        if self.told != state {
            self.told = state;
            TOLD[0].fetch_add(1, Relaxed);
        }
    }

    fn count_phases(&mut self, phase: Phase, times: u64) {
        if let Some(counter) = self.answers.get_mut(phase.index()) {
            *counter = counter.saturating_add(times);
        }
    }

    /// An answer that a client had after so long.
    pub fn observe(&mut self, phase: Phase, ms: u64) {
        if let Some(durations) = self.durations.get_mut(phase.index()) {
            durations.observe(ms);
        }
    }

    /// Hits that took the short way: out of memory, in the turn in which they were asked for.
    pub fn count_ready_hits(&mut self, hits: u64) {
        self.count_ready(hits);
        if let Some(durations) = self.durations.get_mut(Phase::Hit.index()) {
            durations.observe_none(hits);
        }
    }

    /// One that came out of KV.
    pub fn count_ready_hit_in_kv(&mut self, ms: u64) {
        self.count_ready(1);
        self.observe(Phase::Hit, ms);
    }

    fn count_ready(&mut self, hits: u64) {
        self.count_phases(Phase::Hit, hits);
        self.ready_hits = self.ready_hits.saturating_add(hits);
    }
}
