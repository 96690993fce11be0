//! Who is let in: nobody is asked, or a password, or a token of the token server at `/token`.

use super::protocol::{Query, reply, reply_json};
use super::{Behaviour, Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Who is let in.
#[derive(Clone, Default)]
pub enum Login {
    /// Everybody.
    #[default]
    Open,
    /// Who has the password.
    Basic {
        /// `user:password`
        user: &'static str,
    },
    /// Who has a token; with the password it is good for everything, without one for pulling, unless that is
    /// forbidden too.
    Token {
        /// `user:password`
        user: &'static str,
        /// Whether tokens for pulling are given to everybody.
        anonymous_pull: bool,
        /// How long a token is good for, in seconds.
        expires_in: u64,
    },
}

/// The tokens that were given out.
#[derive(Default)]
pub struct Guard {
    tokens: HashMap<String, Token>,
    given: usize,
}

struct Token {
    scopes: Vec<String>,
    end: Instant,
}

/// What a request wants to do.
pub struct Wish<'a> {
    pub repository: &'a str,
    pub push: bool,
}

impl Guard {
    pub fn revoke(&mut self) {
        self.tokens.clear();
    }

    /// Whether somebody who shows these headers may do that; without a wish, whether they are anybody.
    pub fn allows(&self, behaviour: &Behaviour, headers: &HeaderMap, wish: Option<&Wish>) -> bool {
        let shown = headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
        match &behaviour.login {
            Login::Open => true,
            Login::Basic { user } => shown == Some(&basic(user)),
            Login::Token { .. } => {
                let token = shown.and_then(|shown| self.tokens.get(shown.strip_prefix("Bearer ")?));
                token.filter(|token| Instant::now() < token.end).is_some_and(|token| {
                    wish.is_none_or(|wish| token.scopes.iter().any(|scope| covers(scope, wish)))
                })
            }
        }
    }
}

/// Whether `repository:NAME:ACTIONS` is enough.
fn covers(scope: &str, wish: &Wish) -> bool {
    let mut parts = scope.split(':').skip(1);
    let (name, actions) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let action = if wish.push { "push" } else { "pull" };
    name == wish.repository && actions.split(',').any(|word| word == action)
}

fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(user))
}

/// The answer to somebody who may not do that.
pub fn refuse(shared: &Shared, wish: Option<&Wish>) -> Response {
    let challenge = match shared.inside().behaviour.login {
        Login::Open => String::new(),
        // In capitals, as Nexus writes it.
        Login::Basic { .. } => "BASIC realm=\"test, registry\"".to_owned(),
        Login::Token { .. } => {
            let scope = wish.map(|wish| {
                let actions = if wish.push { "pull,push" } else { "pull" };
                format!(",scope=\"repository:{}:{actions}\"", wish.repository)
            });
            let scope = scope.unwrap_or_default();
            format!(
                "Negotiate, Bearer realm=\"http://{}/token\",service=\"test registry\"{scope}",
                shared.host
            )
        }
    };
    let mut response = reply_json(
        StatusCode::UNAUTHORIZED,
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#,
    );
    response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
    response
}

/// The token server.
pub fn token(shared: &Shared, head: &Parts, query: &Query) -> Response {
    let mut inside = shared.inside();
    let Login::Token { user, anonymous_pull, expires_in } = inside.behaviour.login else {
        return reply(StatusCode::NOT_FOUND);
    };
    let shown = head.headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
    let known = match shown {
        Some(shown) if shown == basic(user) => true,
        None if anonymous_pull => false,
        _ => return reply_json(StatusCode::UNAUTHORIZED, r#"{"details":"incorrect username or password"}"#),
    };
    if query.first("service") != Some("test registry") {
        return reply_json(StatusCode::BAD_REQUEST, r#"{"details":"unknown service"}"#);
    }
    // Fewer rights than were asked for are no error: the registry says so later.
    let narrow = |scope: &str| if known { scope.to_owned() } else { scope.replace(",push", "") };
    let scopes = query.all("scope").map(narrow).collect();
    inside.guard.given += 1;
    let name = format!("token-{}", inside.guard.given);
    let end = Instant::now() + Duration::from_secs(expires_in);
    inside.guard.tokens.insert(name.clone(), Token { scopes, end });
    reply_json(StatusCode::OK, format!(r#"{{"token":"{name}","expires_in":{expires_in}}}"#))
}
