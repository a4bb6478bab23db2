//! What an isolate keeps between requests: plain data behind one cell, borrowed for the length of a closure only.
//!
//! A closure here must not await and must not call back into JavaScript code that could re-enter the Worker.
use crate::hits::Ready;
use crate::identity::Identities;
use crate::settings::Settings;
use std::cell::RefCell;
use std::rc::Rc;
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
    /// Answers by phase.
    pub answers: [u64; Phase::ALL.len()],
    /// Hits that took the short way (`hits`).
    pub ready_hits: u64,
    /// How the answer counted last came to be: whoever sends it takes it from here, in the same turn.
    pub last: Option<CacheStatus>,
    pub purges_refused: u64,
    /// Answers whose surrogate keys or state could not be read or were too long, and which were not stored therefore.
    pub bad_surrogates: u64,
    /// Times the journal was asked, and times what it told a neighbour was enough.
    pub syncs_itself: u64,
    pub syncs_neighbour: u64,
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
            engine,
            identities: Identities::default(),
            answers: [0; Phase::ALL.len()],
            ready_hits: 0,
            last: None,
            purges_refused: 0,
            bad_surrogates: 0,
            syncs_itself: 0,
            syncs_neighbour: 0,
        });
        Ok(settings)
    })
}

/// Runs `work` on the isolate; `None` before [`start`].
pub fn with<T>(work: impl FnOnce(&mut Isolate) -> T) -> Option<T> {
    ISOLATE.with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Counts an answer.
pub fn count(status: &CacheStatus) {
    with(|isolate| {
        isolate.last = Some(status.clone());
        if status.stored == Some(Err(Reason::BadSurrogate)) {
            isolate.bad_surrogates = isolate.bad_surrogates.saturating_add(1);
        }
        isolate.count_phase(status.phase);
    });
}

impl Isolate {
    pub fn count_phase(&mut self, phase: Phase) {
        let index = Phase::ALL.iter().position(|one| *one == phase);
        if let Some(counter) = index.and_then(|index| self.answers.get_mut(index)) {
            *counter = counter.saturating_add(1);
        }
    }
}
