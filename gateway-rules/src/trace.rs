//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): which trace a request belongs to. What a client sends is
//! taken over if it is well-formed and never otherwise, so that nothing else of a client's gets into logs.

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    trace_id: u128,
    /// This request's own span here.
    span_id: u64,
    flags: u8,
    /// It goes on a trace that began before us: then `tracestate` goes on with it.
    pub continued: bool,
}

/// Numbers that do not repeat, for ids: nothing secret hangs on them (SplitMix64, public domain, Vigna).
#[derive(Clone, Copy, Debug)]
pub struct Ids(u64);

impl Ids {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Never 0, which stands for no id.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }
}

impl Context {
    /// The context of a request that came with this `traceparent`, if with any.
    pub fn of(traceparent: Option<&str>, ids: &mut Ids) -> Self {
        let span_id = ids.draw();
        match traceparent.and_then(parse) {
            Some((trace_id, flags)) => Self { trace_id, span_id, flags, continued: true },
            None => {
                let trace_id = (u128::from(ids.draw()) << 64) | u128::from(ids.draw());
                // Whether such a trace is recorded is for whoever has the means to say.
                Self { trace_id, span_id, flags: 0, continued: false }
            }
        }
    }

    /// What is sent to origin: our span is its parent.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The request's id: that of its span here.
    pub fn request_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }
}

/// Trace id and flags. Section 3.2: four parts, lower-case hexadecimal, no id all zeros, version ff forbidden; what a later
/// version adds at the end is ignored.
fn parse(text: &str) -> Option<(u128, u8)> {
    let bytes = text.as_bytes();
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let dashes_stand = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
    let part = |from: usize, to: usize| {
        let hex = text.get(from..to)?;
        hex.bytes().all(|byte| is_hex(&byte)).then_some(hex)
    };
    let version = part(0, 2)?;
    let ends_well = match version {
        "00" => bytes.len() == 55,
        "ff" => false,
        _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
    };
    if !dashes_stand || !ends_well {
        return None;
    }
    let trace_id = u128::from_str_radix(part(3, 35)?, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(part(36, 52)?, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(part(53, 55)?, 16).ok()?;
    // Of flags only "sampled" has a meaning in every version (section 3.2.2.5.1).
    Some((trace_id, flags & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(traceparent: &str) -> Context {
        Context::of(Some(traceparent), &mut Ids::seeded(1))
    }

    #[test]
    fn a_trace_goes_on_with_our_span_as_parent_and_its_sampled_flag() {
        for (flags, kept) in [("01", "01"), ("00", "00"), ("03", "01")] {
            let context = of(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}"));
            assert!(context.continued);
            assert_eq!(context.trace_id(), TRACE);
            assert_eq!(context.traceparent(), format!("00-{TRACE}-{}-{kept}", context.request_id()));
            assert_ne!(context.request_id(), "00f067aa0ba902b7");
        }
        assert!(of(&format!("01-{TRACE}-00f067aa0ba902b7-01-what-comes")).continued, "a later version");
    }

    #[test]
    fn what_is_not_well_formed_begins_a_new_trace() {
        for bad in [
            "".into(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-0g"),
            format!("00-{TRACE}_00f067aa0ba902b7-01"),
            format!("00-+{}-00f067aa0ba902b7-01", &TRACE[1..]),
            "ä".repeat(28),
        ] {
            let context = of(&bad);
            assert!(!context.continued, "{bad}");
            assert_ne!(context.trace_id(), TRACE);
            assert_eq!(context.traceparent().len(), 55);
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = Ids::seeded(7);
        let drawn: std::collections::HashSet<u64> = (0..100_000).map(|_| ids.draw()).collect();
        assert_eq!(drawn.len(), 100_000);
    }
}
