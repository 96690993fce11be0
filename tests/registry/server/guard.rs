//! Who is let in: nobody is asked, or a password, or a token of the token server at `/token`.

use super::protocol::{Query, reply, reply_json};
use super::{Behaviour, Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
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
    /// The bodies of the requests for tokens that had one.
    pub exchanges: Vec<String>,
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
                    wish.is_none_or(|wish| {
                        token.scopes.iter().any(|scope| covers(scope, wish))
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
    let also = shared.inside().behaviour.wants_also.filter(|_| wish.is_some());
    let Behaviour { login, token_server, challenges, .. } = shared.inside().behaviour.clone();
    let challenge = match login {
        Login::Open => String::new(),
        // In capitals, as Nexus writes it.
        Login::Basic { .. } => "BASIC realm=\"test, registry\"".to_owned(),
        Login::Token { .. } => {
            let scope = wish.map(|wish| {
                let actions = if wish.push { "pull,push" } else { "pull" };
                format!(",scope=\"repository:{}:{actions}\"", wish.repository)
            });
            let scope = match also {
                // Two at once, as it is allowed.
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
    for line in if challenges.is_empty() { vec![challenge] } else { challenges } {
        response.headers_mut().append("www-authenticate", line.parse().unwrap());
    }
    response
}

/// The token server. A form is the newer way to ask, for those who have a token that stands for a person.
pub fn token(shared: &Shared, head: &Parts, query: &Query, form: &str) -> Response {
    let mut inside = shared.inside();
    let Login::Token { user, anonymous_pull, expires_in } = inside.behaviour.login else {
        return reply(StatusCode::NOT_FOUND);
    };
    let denied = || reply_json(StatusCode::UNAUTHORIZED, r#"{"details":"incorrect username or password"}"#);
    let identity = inside.behaviour.identity;
    let in_form = Query::parse(form);
    let query = match head.method == Method::POST {
        true => &in_form,
        false => query,
    };
    let shown = head.headers.get("authorization").map(|value| value.to_str().unwrap_or_default());
    let known = match shown {
        _ if head.method == Method::POST => {
            inside.guard.exchanges.push(form.to_owned());
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
        _ => return denied(),
    };
    if query.first("service") != Some("test registry") {
        return reply_json(StatusCode::BAD_REQUEST, r#"{"details":"unknown service"}"#);
    }
    // Fewer rights than were asked for are no error: the registry says so later.
    let narrow = |scope: &str| if known { scope.to_owned() } else { scope.replace(",push", "") };
    let scopes = query.all("scope").flat_map(|scope| scope.split(' ').map(narrow)).collect();
    inside.guard.given += 1;
    let name = format!("token-{}", inside.guard.given);
    let end = Instant::now() + Duration::from_secs(expires_in);
    inside.guard.tokens.insert(name.clone(), Token { scopes, end });
    reply_json(StatusCode::OK, format!(r#"{{"token":"{name}","expires_in":{expires_in}}}"#))
}
