//! What requests do: ask, step by step, in the tiers and at origin, and what is checked of each answer.
use super::*;

impl World {
    pub(super) fn request(&mut self) {
        let isolate = self.random.usize(0..self.isolates.len());
        let doc = self.random.usize(0..DOC_KEYS.len());
        let mut demanded = None;
        let mut fields = Fields::new();
        match self.random.u32(0..20) {
            0 | 1 if self.owner == LogOwner::Origin && self.database.head() > 0 => {
                let seq = self.random.u64(1..=self.database.head());
                demanded = Some(AsOf::new(self.database.log_id(), seq));
            }
            // At times what nobody has yet.
            0 if self.owner == LogOwner::Journal => {
                let log_id = self.journal.log_id().cloned();
                demanded = log_id.map(|log_id| {
                    let numbers = self.history.numbers(&log_id);
                    let seq = self.random.choice(&numbers).copied().filter(|_| self.random.u32(0..4) > 0);
                    AsOf::new(log_id, seq.unwrap_or(self.journal.head() + 1))
                });
            }
            2 => fields.push("cache-control", "no-cache"),
            3 => fields.push("cache-control", "max-stale"),
            _ => {}
        }
        let variant = self.random.usize(0..VARIANTS);
        self.ask(isolate, (doc, variant), fields, demanded);
    }

    pub(super) fn ask(
        &mut self,
        place: usize,
        (doc, variant): (usize, Variant),
        mut fields: Fields,
        demanded: Option<AsOf>,
    ) {
        self.stats.requests += 1;
        let claimed = self.account.claimed(self.isolates[place].location);
        let isolate = &mut self.isolates[place];
        let written = isolate.written.get(&doc).copied().unwrap_or(0);
        let is_plain = fields.iter().next().is_none() && demanded.is_none();
        if variant > 0 {
            fields.push(SELECTING, variant.to_string());
        }
        let request = Request {
            key: format!("GET /{doc}"),
            is_head: false,
            directives: RequestDirectives::of(&fields),
            fields,
            min_as_of: demanded.clone(),
        };
        let key = request.key.clone();
        let lookup = Box::new(Lookup::new(request));
        let mut asked = Asked { demanded, claimed, written, ..Asked::of(lookup, (doc, variant), self.now_ms) };
        let (id, clock) = (isolate.id, isolate.clock(self.now_ms));
        if is_plain {
            // The short way. What is no plain hit goes on as any request does.
            let Isolate { engine, slots, .. } = isolate;
            let slot = *slots.entry(doc).or_insert_with(|| engine.slot(&key, true).expect("few documents"));
            if let Some(entry) = engine.hit(slot, clock) {
                self.stats.hits += 1;
                self.stats.short += 1;
                self.check(place, &entry, &asked, Phase::Hit);
                return self.note(|_| format!("isolate {id}: document {doc} answered the short way: {:?}", entry.body));
            }
            if isolate.engine.reads_kv_first(&key, clock) {
                self.note(|_| format!("isolate {id}: a request for document {doc} reads KV first"));
                return self.tasks.push(Task { isolate: id, work: Work::Lookup(asked, At::KvFirst) });
            }
        }
        let first = asked.lookup.step(&mut isolate.engine, Event::Start, clock);
        self.note(|_| format!("isolate {id}: a request for document {doc}, variant {variant}"));
        self.proceed(id, asked, first);
    }

    pub(super) fn begin_refresh(&mut self, id: u32, lookup: Lookup<Body>, variant: Variant) {
        let Some(isolate) = self.isolates.iter_mut().find(|isolate| isolate.id == id) else { return };
        let clock = isolate.clock(self.now_ms);
        let doc = doc_of(lookup.key());
        let claimed = self.account.claimed(isolate.location);
        let mut asked = Asked { claimed, is_behind: true, ..Asked::of(Box::new(lookup), (doc, variant), self.now_ms) };
        let first = asked.lookup.step(&mut isolate.engine, Event::Start, clock);
        self.proceed(id, asked, first);
    }

    /// What follows from a lookup's step: an answer leaves at once, anything else takes its time.
    pub(super) fn proceed(&mut self, id: u32, mut asked: Asked, step: Step<Body>) {
        if let (Step::Fetch(_), None) = (&step, &asked.knew)
            && let Some(Isolate { engine, hears_parts, .. }) = self.isolates.iter().find(|isolate| isolate.id == id)
        {
            asked.knew = engine.view.newest().map(|as_of| Box::new(Knew { as_of, hears_parts: *hears_parts }));
        }
        match step {
            Step::Answer(answer) => self.answered(id, *answer, &asked),
            step => self.tasks.push(Task { isolate: id, work: Work::Lookup(asked, At::Step(step)) }),
        }
    }

    pub(super) fn advance_lookup(&mut self, place: usize, mut asked: Asked, at: At) -> Option<Work> {
        let event = match at {
            At::KvFirst => {
                let found = if self.fails(2) { None } else { self.look(place, Tier::Kv, asked.lookup.key()) };
                return Some(Work::Lookup(asked, At::FoundFirst(found)));
            }
            At::FoundFirst(found) => {
                let isolate = &mut self.isolates[place];
                let clock = isolate.clock(self.now_ms);
                match isolate.engine.hit_in_kv(asked.lookup.key(), found, clock) {
                    Ok(entry) => {
                        self.stats.hits += 1;
                        self.stats.kv_first += 1;
                        self.check(place, &entry, &asked, Phase::Hit);
                        return None;
                    }
                    Err(found) => *asked.lookup = asked.lookup.with_kv(found.map(|entry| *entry)),
                }
                Event::Start
            }
            At::Step(Step::Answer(_)) => return None,
            At::Step(Step::Sync { shared: true }) if self.take_shared(place) => Event::Synced,
            At::Step(Step::Sync { .. }) => {
                let (query, sent, delta) = self.ask_journal(place);
                return Some(Work::Lookup(asked, At::Synced(query, sent, delta)));
            }
            At::Step(Step::Wait { ms }) => {
                // A timer never fires early.
                self.now_ms += ms;
                Event::Waited
            }
            At::Step(Step::Read { tier, key }) => {
                let found = if self.fails(2) { None } else { self.look(place, tier, &key) };
                return Some(Work::Lookup(asked, At::Found(found)));
            }
            At::Step(Step::Fetch(fetch)) => {
                asked.sent_log = self.isolates[place].engine.view.log_id().cloned();
                match self.fetch(place, (asked.doc, asked.variant), &fetch) {
                    None => {
                        asked.is_failing = true;
                        Event::OriginFailed
                    }
                    Some((head, body)) => return Some(Work::Lookup(asked, At::Answered(head, body))),
                }
            }
            At::Step(Step::Join { .. }) => Event::Joined(None),
            At::Synced(query, sent, delta) => {
                if self.hear_journal(place, &query, sent, delta) {
                    let (query, sent, delta) = self.ask_journal(place);
                    return Some(Work::Lookup(asked, At::Synced(query, sent, delta)));
                }
                Event::Synced
            }
            At::Found(found) => Event::Read(found),
            At::Answered(_, _) if self.fails(3) => {
                asked.is_failing = true;
                Event::OriginFailed
            }
            At::Answered(mut head, body) => {
                asked.is_failing |= head.status != 200 && head.status != 304;
                asked.read = Some(body);
                head.response_time_ms = self.isolates[place].clock(self.now_ms);
                Event::Origin(head)
            }
        };
        let isolate = &mut self.isolates[place];
        let (id, clock) = (isolate.id, isolate.clock(self.now_ms));
        let step = asked.lookup.step(&mut isolate.engine, event, clock);
        self.proceed(id, asked, step);
        None
    }

    /// A read of a tier. KV answers from what the location saw of it within the last minute, absence included.
    pub(super) fn look(&mut self, place: usize, tier: Tier, key: &str) -> Option<Entry<Body>> {
        let location = self.isolates[place].location;
        if tier != Tier::Kv {
            return self.colo[location].get(key).cloned();
        }
        if let Some((seen, until_ms)) = self.kv_seen[location].get(key)
            && self.now_ms < *until_ms
        {
            return seen.clone();
        }
        let now = self.kv.get(key).map(|(entry, _)| entry.clone());
        self.kv_seen[location].insert(key.to_string(), (now.clone(), self.now_ms + KV_LAG_MS));
        now
    }

    pub(super) fn write(&mut self, place: usize, entry: &Arc<Entry<Body>>, tier: Tier) {
        if self.fails(3) {
            return;
        }
        // What another isolate reads has no confirmation by that isolate's clock.
        let stored = Entry { origin_confirmed: None, ..(**entry).clone() };
        let location = self.isolates[place].location;
        if tier != Tier::Kv {
            self.colo[location].insert(stored.key.clone(), stored);
            return;
        }
        let too_soon = self.kv.get(&stored.key).is_some_and(|(_, at_ms)| self.now_ms < at_ms + 1_000);
        if !too_soon {
            self.kv.insert(stored.key.clone(), (stored, self.now_ms));
        }
    }

    /// Origin reads now; its answer arrives later.
    pub(super) fn fetch(
        &mut self,
        place: usize,
        (doc, variant): (usize, Variant),
        fetch: &Fetch,
    ) -> Option<(ResponseHead, Body)> {
        if self.fails(6) {
            return None;
        }
        // An origin without a log knows of no states.
        let demanded = fetch.min_as_of.as_ref().filter(|_| self.owner == LogOwner::Origin);
        let seq = self.database.read_at(&mut self.random, demanded);
        let (now_ms, isolate) = (self.now_ms, &mut self.isolates[place]);
        let (id, clock) = (isolate.id, isolate.clock(now_ms));
        isolate.origin_asked_ms.insert(clock, now_ms);
        let mut fields = Fields::new();
        let head = |status, fields| ResponseHead { status, fields, request_time_ms: clock, response_time_ms: clock };
        let Some(seq) = seq else {
            return Some((head(503, fields), Body { doc, content: 0, variant: None }));
        };
        let content = self.database.content(doc, seq);
        let variant = varies(doc, content).then_some(variant);
        let body = Body { doc, content, variant };
        self.note(|_| format!("isolate {id}: origin reads document {doc} as of {seq}: write {content}"));
        let etag = format!("\"{doc}-{content}-{variant:?}\"");
        if variant.is_some() {
            fields.push("vary", SELECTING);
        }
        fields.push("cache-control", POLICIES[doc % POLICIES.len()]);
        fields.push("etag", etag.clone());
        let keys: Vec<String> = DOC_KEYS[doc].iter().map(|index| key(*index).to_string()).collect();
        fields.push("surrogate-key", keys.join(" "));
        if self.owner == LogOwner::Origin {
            fields.push("surrogate-as-of", AsOf::new(self.database.log_id(), seq).to_string());
        }
        let unchanged = fetch.fields.iter().any(|(name, value)| name == "if-none-match" && *value == etag);
        Some((head(if unchanged { 304 } else { 200 }, fields), body))
    }

    pub(super) fn answered(&mut self, id: u32, mut answer: Answer<Body>, asked: &Asked) {
        let Some(place) = self.isolates.iter().position(|isolate| isolate.id == id) else { return };
        let doc = asked.doc;
        let behind = std::mem::take(answer.behind());
        let status = answer.status().clone();
        let mut written = None;
        match answer {
            Answer::Failed { failure, .. } => {
                self.stats.failed += 1;
                // This origin answers nothing else than what it was asked, and this world takes one step after the other.
                if matches!(failure, Failure::OutOfOrder | Failure::Invalid(_)) {
                    self.blame(format!("isolate {id}: document {doc} failed: {failure:?}"));
                }
                self.note(|_| format!("isolate {id}: document {doc} failed: {failure:?}"));
            }
            Answer::Stored { entry, .. } => {
                match status.phase {
                    Phase::Hit => self.stats.hits += 1,
                    Phase::Stale | Phase::StaleError => self.stats.stale += 1,
                    _ => self.stats.forwarded += 1,
                }
                // What origin confirmed a moment ago is origin's answer, as a forwarded one is.
                self.check(place, &entry, asked, status.phase);
                self.note(|_| {
                    format!(
                        "isolate {id}: document {doc} answered: {} {:?}, {:?}",
                        status.phase.as_str(),
                        status.reason,
                        entry.body
                    )
                });
                written = Some(entry);
            }
            Answer::Forwarded { head, store, .. } => {
                self.stats.forwarded += 1;
                let Some(body) = asked.read else {
                    self.blame("an answer of origin's without one");
                    return;
                };
                self.note(|_| format!("isolate {id}: document {doc} forwarded: {:?} {body:?}", status.reason));
                self.show(body, asked);
                if head.status == 200 {
                    self.check_forwarded(place, &head, body, asked);
                }
                if let Some(plan) = store {
                    self.tasks.push(Task { isolate: id, work: Work::Fill(plan, body) });
                }
            }
        }
        self.behind(id, behind, written, asked.variant);
    }

    /// Origin's answer goes to its client unless the isolate knows of a younger hard purge, or knew of a younger soft one when it
    /// asked and origin did not fail, or it is not what was demanded.
    fn check_forwarded(&mut self, place: usize, head: &ResponseHead, body: Body, asked: &Asked) {
        let doc = asked.doc;
        let is_forked = |log_id: &LogId| self.forked.contains(log_id);
        let named = head.fields.get("surrogate-as-of").and_then(|text| text.parse::<AsOf>().ok());
        let log_id = named.as_ref().map(|as_of| as_of.log_id.clone()).or_else(|| asked.sent_log.clone());
        let view = &self.isolates[place].engine.view;
        // Of another log than the view's nothing is known.
        if let Some(log_id) = log_id.filter(|log_id| view.log_id() == Some(log_id) && !is_forked(log_id)) {
            let hears_parts = self.isolates[place].hears_parts;
            let (hard, write) = self.history.youngest_told(&log_id, view.applied(), doc, true, hears_parts);
            if body.content < write {
                let content = body.content;
                return self
                    .blame(format!("document {doc} with write {content} was forwarded past the hard purge {hard}"));
            }
        }
        let known_log = view.log_id().filter(|log_id| self.owner == LogOwner::Origin && !is_forked(log_id));
        let is_of_it = |as_of: &AsOf| known_log == Some(&as_of.log_id);
        if let Some(knew) = asked.knew.as_ref().filter(|knew| !asked.is_failing && is_of_it(&knew.as_of))
            && named.as_ref().is_some_and(is_of_it)
        {
            let (purge, write) =
                self.history.youngest_told(&knew.as_of.log_id, knew.as_of.seq, doc, false, knew.hears_parts);
            if body.content < write {
                let content = body.content;
                return self.blame(format!("document {doc} with write {content} was forwarded past the purge {purge}"));
            }
        }
        let demanded = asked.demanded.as_ref().filter(|min| !is_forked(&min.log_id));
        let served = Served {
            doc,
            content: body.content,
            as_of: None,
            view: None,
            hears_parts: false,
            arrived_ms: asked.arrived_ms,
            now_ms: self.now_ms,
            journal_asked_ms: None,
            origin_asked_ms: None,
            bound_ms: CONFIG_BOUND_MS,
            purged_at_ms: None,
            is_fresh: false,
            is_stale: false,
            is_stored: false,
            demanded,
            written: asked.written,
        };
        let fault = self.history.fault(&served);
        fault.into_iter().for_each(|fault| self.blame(fault));
    }

    pub(super) fn behind(
        &mut self,
        id: u32,
        behind: Behind<Body>,
        written: Option<Arc<Entry<Body>>>,
        variant: Variant,
    ) {
        if behind.sync {
            self.tasks.push(Task { isolate: id, work: Work::Sync(None) });
        }
        if let Some(entry) = written {
            for tier in behind.write {
                self.tasks.push(Task { isolate: id, work: Work::Write(Arc::clone(&entry), tier) });
            }
        }
        if let Some(refresh) = behind.refresh {
            self.begin_refresh(id, refresh, variant);
        }
    }

    /// This is what its client sees, if there is one.
    fn show(&mut self, body: Body, asked: &Asked) {
        if !asked.is_behind {
            self.last = Some(body);
        }
        if body.variant.is_some_and(|variant| variant != asked.variant) {
            self.blame(format!("{body:?} was answered to who asked for variant {}", asked.variant));
        }
    }

    pub(super) fn check(&mut self, place: usize, entry: &Entry<Body>, asked: &Asked, phase: Phase) {
        self.show(entry.body, asked);
        let isolate = &self.isolates[place];
        let view = &isolate.engine.view;
        let logs = [view.log_id(), entry.as_of.as_ref().map(|as_of| &as_of.log_id)];
        if logs.into_iter().flatten().any(|log_id| self.forked.contains(log_id)) {
            return;
        }
        let origin_asked_ms = entry.origin_confirmed.and_then(|at| isolate.origin_asked_ms.get(&at.at_ms).copied());
        let least_ms = asked.arrived_ms.min(self.now_ms.saturating_sub(CONFIG_BOUND_MS));
        // Where the journal numbers, soft purges leave the old copy to stale-while-revalidate. And what a lagging replica
        // confirmed a moment ago is its word against nobody's.
        let is_bounded = self.owner == LogOwner::Origin && origin_asked_ms.is_none_or(|at_ms| at_ms < least_ms);
        let as_of = entry.as_of.as_ref().filter(|_| is_bounded);
        let unseen = as_of.and_then(|as_of| Some((&as_of.log_id, self.history.oldest_after(as_of, asked.doc)?)));
        let doc = asked.doc;
        let served = Served {
            doc,
            content: entry.body.content,
            as_of: entry.as_of.as_ref(),
            view: view.log_id().map(|log_id| (log_id, view.applied())),
            hears_parts: isolate.hears_parts,
            arrived_ms: asked.arrived_ms,
            now_ms: self.now_ms,
            journal_asked_ms: isolate.journal_asked_ms,
            origin_asked_ms,
            bound_ms: CONFIG_BOUND_MS,
            purged_at_ms: unseen.and_then(|(log_id, seq)| self.journal.accepted_ms(log_id, seq)),
            // What origin confirmed a moment ago is origin's answer, as a forwarded one is.
            is_fresh: phase == Phase::Hit,
            is_stale: phase == Phase::Stale,
            is_stored: true,
            demanded: asked.demanded.as_ref(),
            written: asked.written,
        };
        if entry.body.doc != doc {
            self.blame(format!("document {doc} was answered with document {}", entry.body.doc));
        } else if let Some(fault) = self.history.fault(&served) {
            self.blame(format!("isolate {}: {fault}", isolate.id));
        } else if let Some(claim) = asked.claimed
            && let Some(fault) = self.belies(claim, &served)
        {
            self.blame(format!("isolate {}: {fault}", isolate.id));
        }
    }

    /// A body has come to its end, or breaks off.
    pub(super) fn fill(&mut self, place: usize, plan: StorePlan, body: Body) {
        let breaks = self.fails(4);
        let isolate = &mut self.isolates[place];
        let (id, clock) = (isolate.id, isolate.clock(self.now_ms));
        if breaks {
            return isolate.engine.abandon(&plan, Reason::OriginFailed, clock);
        }
        let stored = isolate.engine.complete(plan, body, 100);
        let entries: Vec<_> = stored.for_tiers().cloned().collect();
        self.note(|_| format!("isolate {id}: stores {body:?} as of {:?}", stored.entry.as_of));
        for entry in entries {
            for tier in [Tier::Colo, Tier::Kv] {
                self.tasks.push(Task { isolate: id, work: Work::Write(Arc::clone(&entry), tier) });
            }
        }
    }
}
