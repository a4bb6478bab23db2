//! The access log: which requests get a line, and under which name a path stands in it.

/// Which requests get a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    All,
    /// One of so many, and every one that failed.
    Sampled(u64),
    /// Those that failed alone.
    Errors,
    Off,
}

impl Wish {
    pub fn read(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "off" => Ok(Self::Off),
            _ => text
                .strip_prefix("sampled:")
                .and_then(|n| n.parse::<u64>().ok())
                .filter(|n| *n > 0)
                .map(Self::Sampled)
                .ok_or_else(|| format!("it must be all, sampled:N, errors or off, not '{text}'")),
        }
    }

    /// Whether a request of this number, drawn at random, gets one.
    pub fn picks(self, failed: bool, drawn: u64) -> bool {
        match self {
            Self::All => true,
            Self::Sampled(n) => failed || drawn.checked_rem(n) == Some(0),
            Self::Errors => failed,
            Self::Off => false,
        }
    }
}

const SEGMENTS_MAX: usize = 6;

/// Names in paths, of the gateway's own and of what origin serves, which a test of origin's compares with this list. Of a service
/// for `/media` nothing is known.
const NAMES: &str = "accept audit batch bulk catalog collections continue-watching genres health home invitation \
    jwks.json login logout logout-everywhere metrics panic password people progress purges rails refresh register \
    restore search seasons series sessions similar staff titles users warm watch-list";

/// A path as the log has it: no query, and `*` for ids and whatever has no name here, so that lines of one route can be
/// counted together and nothing a client made up stands there.
pub fn route(target: &str) -> String {
    let path = target.split('?').next().unwrap_or(target);
    let mut segments = path.split('/');
    segments.next();
    let segments: Vec<&str> = segments.take(SEGMENTS_MAX).collect();
    // Names and ids take turns, from where the names begin.
    let names_from = match segments.as_slice() {
        ["v1", "me", ..] | ["admin", "v1", ..] => 2,
        ["v1" | "auth" | "media" | "__edge" | ".well-known", ..] => 1,
        _ => return "*".into(),
    };
    let mut name = String::new();
    for (at, segment) in segments.iter().enumerate() {
        let is_kept = match at.checked_sub(names_from) {
            None => true,
            Some(place) => place & 1 == 0 && NAMES.split(' ').any(|name| name == *segment),
        };
        name.push('/');
        name.push_str(if is_kept { segment } else { "*" });
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_names_and_ids_do_not() {
        for (target, name) in [
            ("/v1/home?fields=secret", "/v1/home"),
            ("/v1/titles/heat-1995", "/v1/titles/*"),
            ("/v1/titles/heat-1995/similar", "/v1/titles/*/similar"),
            ("/v1/series/x/seasons/2", "/v1/series/*/seasons/*"),
            ("/v1/me", "/v1/me"),
            ("/v1/me/watch-list/heat", "/v1/me/watch-list/*"),
            ("/admin/v1/titles/heat", "/admin/v1/titles/*"),
            ("/auth/login?password=x", "/auth/login"),
            ("/__edge/purges/17", "/__edge/purges/*"),
            ("/admin/v1/users/17/invitation", "/admin/v1/users/*/invitation"),
            ("/.well-known/jwks.json", "/.well-known/jwks.json"),
            ("/v1/%22\n", "/v1/*"),
            ("/auth/hunter2", "/auth/*"),
            ("/v1/me/my-secret", "/v1/me/*"),
            ("/v1/madeup", "/v1/*"),
            ("/v1/titles/home/hunter2", "/v1/titles/*/*"),
            ("/v1/titles/heat/", "/v1/titles/*/*"),
            ("/v1/", "/v1/*"),
            ("/media/hunter2", "/media/*"),
            ("/__edge/hunter2", "/__edge/*"),
            ("/admin/v1/hunter2", "/admin/v1/*"),
            ("/anything/else", "*"),
            ("", "*"),
        ] {
            assert_eq!(route(target), name, "{target}");
        }
    }

    #[test]
    fn failures_are_never_sampled_away() {
        assert!(Wish::Sampled(10).picks(true, 3) && !Wish::Sampled(10).picks(false, 3));
        assert!(Wish::Sampled(10).picks(false, 20) && Wish::All.picks(false, 3));
        assert!(Wish::Errors.picks(true, 0) && !Wish::Errors.picks(false, 0) && !Wish::Off.picks(true, 0));
        assert_eq!(Wish::read("sampled:10"), Ok(Wish::Sampled(10)));
        for bad in ["", "sampled:0", "sampled:x", "some"] {
            assert!(Wish::read(bad).is_err(), "{bad}");
        }
    }
}
