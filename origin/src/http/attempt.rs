//! How often one may guess: an attempt counts for its account and its address while it is under way, and stays counted unless
//! it was good, or was none.
use super::App;
use super::error::{ApiError, problem_response};
use super::limits::limit_fields;
use crate::auth::throttle::{Throttle, Ticket};
use crate::auth::{self, account_key};
use crate::now_ms;
use crate::store::accounts::Kind;
use axum::http::HeaderMap;
use axum::response::Response;
use kv_schemas::Problem;
use kv_schemas::edge_secret::EDGE_CLIENT;

/// The policies an attempt counts for. Dropped, it stays counted: who leaves while a password is hashed has had that work done.
pub struct Attempt<'a> {
    app: &'a App,
    counts: Vec<(Throttle, String, Ticket)>,
}

impl<'a> Attempt<'a> {
    /// Counts an attempt for each policy, or says which one it has to wait for, and counts it for none.
    pub fn begin(app: &'a App, counts: Vec<(Throttle, String)>) -> Result<Self, ApiError> {
        let mut attempt = Self { app, counts: Vec::new() };
        for (policy, name) in counts {
            match app.auth.throttles.begin(policy, &name, now_ms()) {
                Ok(ticket) => attempt.counts.push((policy, name, ticket)),
                Err(wait) => {
                    attempt.undo();
                    metrics::counter!("origin_throttled_total", "policy" => policy.name).increment(1);
                    return Err(ApiError::TooOften(policy, wait));
                }
            }
        }
        Ok(attempt)
    }

    /// A guess at an account's password. The address first: who may not guess from there cannot make the account wait.
    pub fn guess(app: &'a App, kind: Kind, email: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let address = address(app, headers).map(|address| (auth::THROTTLE_ADDRESS, address));
        let account = (auth::THROTTLE_ACCOUNT, account_key(kind, email));
        Self::begin(app, address.into_iter().chain([account]).collect())
    }

    /// Sees to what decides the attempt. If that fails, there was no guess, and nothing is left of it.
    pub async fn decided<T, E: Into<ApiError>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<(Self, T), ApiError> {
        match work.await {
            Ok(done) => Ok((self, done)),
            Err(error) => {
                self.undo();
                Err(error.into())
            }
        }
    }

    /// It was no guess: nothing was looked at.
    fn undo(self) {
        for (policy, name, ticket) in self.counts {
            self.app.auth.throttles.take_back(policy, &name, ticket);
        }
    }

    /// The right password. The address keeps what it guessed before.
    pub fn succeed(self) {
        for (policy, name, ticket) in self.counts {
            match policy == auth::THROTTLE_ACCOUNT {
                true => self.app.auth.throttles.forget(policy, &name),
                false => self.app.auth.throttles.take_back(policy, &name, ticket),
            }
        }
    }

    /// The answer to a wrong one: the same whether or not there is such an account.
    pub fn refuse(self) -> Response {
        let problem = Problem::new(401, "credentials", "The e-mail address or the password is wrong");
        let mut response = problem_response(&problem);
        let account = self.counts.iter().find(|(policy, ..)| *policy == auth::THROTTLE_ACCOUNT);
        if let Some((policy, name, _)) = account {
            let left = self.app.auth.throttles.left(*policy, name);
            limit_fields(response.headers_mut(), *policy, left, None);
        }
        response
    }
}

/// Where a request comes from, as attempts from there are counted.
pub fn address(app: &App, headers: &HeaderMap) -> Option<String> {
    // Twice in one request: somebody has added one of his own.
    let mut fields = headers.get_all(EDGE_CLIENT).iter();
    let field = fields.next().filter(|_| fields.next().is_none());
    app.auth.origin_of(field.and_then(|value| value.to_str().ok()))
}
