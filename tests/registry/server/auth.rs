//! Authentication: none, by password, or by tokens of the token server at `/token`.

use super::protocol::{Query, reply, reply_json};
use super::{Behaviour, Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The authentication that the registry requires.
#[derive(Clone, Default)]
pub enum Login {
    /// None.
    #[default]
    Open,
    /// The password with every request.
    Basic {
        /// `user:password`
        user: &'static str,
    },
    /// A token. With the password it has all scopes, without it only those for pulling, if that is allowed.
    Token {
        /// `user:password`
        user: &'static str,
        /// Gives tokens for pulling without a password.
        anonymous_pull: bool,
        /// The lifetime of a token in seconds.
        expires_in: u64,
    },
}

/// The form of tokens and of their scopes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokens {
    /// `token` with its lifetime, for the actions `pull`, `push` and `delete`, as in distribution and GitLab.
    #[default]
    Distribution,
    /// `access_token` only, as in ACR.
    Azure,
    /// The token server knows `pull`, `push` and `*` only, and pushing includes deleting, as in Quay.
    Quay,
}

impl Tokens {
    /// Returns the action that deletes a manifest.
    pub fn deletion(self) -> &'static str {
        if self == Self::Quay { "push" } else { "delete" }
    }
}

/// The tokens that were issued.
#[derive(Default)]
pub struct TokenStore {
    tokens: HashMap<String, Token>,
    given: usize,
    /// The number of requests with a token that is not valid, or no longer.
    pub rejected_tokens: usize,
    /// The number of requests with a wrong password.
    pub rejected_passwords: usize,
    /// The bodies of the token requests.
    pub exchanges: Vec<String>,
}

struct Token {
    scopes: Vec<String>,
    end: Instant,
}

/// The permission that a request needs.
pub struct Permission<'a> {
    pub repository: &'a str,
    /// `pull`, `push` or `delete`
    pub action: &'static str,
}

impl TokenStore {
    pub fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Returns whether a request with these headers has a permission; without one, whether it is authenticated.
    pub fn allows(
        &self,
        behaviour: &Behaviour,
        headers: &HeaderMap,
        permission: Option<&Permission>,
    ) -> bool {
        let shown = headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
        match &behaviour.login {
            Login::Open => true,
            Login::Basic { user } => shown == Some(&basic(user)),
            Login::Token { .. } => {
                let token = shown.and_then(|shown| self.tokens.get(shown.strip_prefix("Bearer ")?));
                token.filter(|token| Instant::now() < token.end).is_some_and(|token| {
                    permission.is_none_or(|permission| {
                        token.scopes.iter().any(|scope| covers(scope, permission))
                            && token.has(behaviour.wants_also)
                    })
                })
            }
        }
    }
}

impl Token {
    fn has(&self, also: Option<(&str, u16)>) -> bool {
        also.is_none_or(|(scope, _)| self.scopes.iter().any(|has| has == scope))
    }
}

/// Returns whether the scope `repository:NAME:ACTIONS` includes a permission.
fn covers(scope: &str, permission: &Permission) -> bool {
    let mut parts = scope.split(':').skip(1);
    let (name, actions) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    name == permission.repository && actions.split(',').any(|word| word == permission.action)
}

fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(user))
}

/// Returns the response to a request without the permission.
pub fn refuse(shared: &Shared, permission: Option<&Permission>) -> Response {
    let also = shared.inside().behaviour.wants_also.filter(|_| permission.is_some());
    let Behaviour { login, token_server, challenges, hides_challenges, .. } =
        shared.inside().behaviour.clone();
    let challenge = match login {
        Login::Open => String::new(),
        // Nexus writes the scheme in capitals.
        Login::Basic { .. } => "BASIC realm=\"test, registry\"".to_owned(),
        Login::Token { .. } => {
            let scope = permission.map(|permission| {
                let actions = if permission.action == "pull" { "pull" } else { "pull,push" };
                format!(",scope=\"repository:{}:{actions}\"", permission.repository)
            });
            let scope = match also {
                // A header may have two challenges.
                Some((also, _)) => {
                    format!(",error=\"insufficient_scope\",scope=\"{also} repository:third:pull\"")
                }
                None => scope.unwrap_or_default(),
            };
            let server = token_server.unwrap_or_else(|| format!("http://{}", shared.host));
            format!("Negotiate, Bearer realm=\"{server}/token\",service=\"test registry\"{scope}")
        }
    };
    let status = also.map_or(StatusCode::UNAUTHORIZED, |(_, status)| StatusCode::from_u16(status).unwrap());
    let mut response = reply_json(status, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#);
    if hides_challenges && permission.is_some() {
        return response;
    }
    for line in if challenges.is_empty() { vec![challenge] } else { challenges } {
        response.headers_mut().append("www-authenticate", line.parse().unwrap());
    }
    response
}

/// Answers a request to the token server. A form is for identity tokens.
pub fn token(shared: &Shared, head: &Parts, query: &Query, form: &str) -> Response {
    let mut inside = shared.inside();
    let Login::Token { user, anonymous_pull, expires_in } = inside.behaviour.login else {
        return reply(StatusCode::NOT_FOUND);
    };
    let denied = || reply_json(StatusCode::UNAUTHORIZED, r#"{"details":"incorrect username or password"}"#);
    let identity = inside.behaviour.identity;
    let in_form = Query::parse(form);
    let query = if head.method == Method::POST { &in_form } else { query };
    let shown = head.headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
    let known = match shown {
        _ if head.method == Method::POST => {
            inside.token_store.exchanges.push(form.to_owned());
            let fits = query.first("grant_type") == Some("refresh_token")
                && query.first("client_id") == Some("volio")
                && query.first("refresh_token") == identity;
            if !fits || identity.is_none() {
                return denied();
            }
            true
        }
        Some(shown) if shown == basic(user) => true,
        Some(shown) if identity.is_some_and(|token| shown == basic(&format!("<token>:{token}"))) => true,
        None if anonymous_pull => false,
        _ => {
            inside.token_store.rejected_passwords += usize::from(shown.is_some());
            return denied();
        }
    };
    if query.first("service") != Some("test registry") {
        return reply_json(StatusCode::BAD_REQUEST, r#"{"details":"unknown service"}"#);
    }
    let form = inside.behaviour.tokens;
    if form == Tokens::Quay && query.all("scope").any(|scope| scope.contains("delete")) {
        return reply_json(StatusCode::BAD_REQUEST, r#"{"error":"Unable to decode repository and actions"}"#);
    }
    // A token may have fewer scopes than were requested; the registry rejects it later.
    let narrow = |scope: &str| {
        if known { scope.to_owned() } else { scope.replace(",push", "").replace(",delete", "") }
    };
    let scopes = query.all("scope").flat_map(|scope| scope.split(' ').map(narrow)).collect();
    inside.token_store.given += 1;
    let name = format!("token-{}", inside.token_store.given);
    let end = Instant::now() + Duration::from_secs(expires_in);
    inside.token_store.tokens.insert(name.clone(), Token { scopes, end });
    let body = match form {
        Tokens::Azure => format!(r#"{{"access_token":"{name}"}}"#),
        _ => format!(r#"{{"token":"{name}","expires_in":{expires_in}}}"#),
    };
    reply_json(StatusCode::OK, body)
}
