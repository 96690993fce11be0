//! `WWW-Authenticate`: how a registry says what it wants to see (RFC 9110, section 11.6.1).

use reqwest::header::HeaderValue;

/// One way to be let in that we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with every request.
    Basic,
    /// A token, which another server gives out.
    Bearer(Realm),
}

/// Where tokens are to be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Realm {
    /// The address of the token server.
    pub(super) address: String,
    /// The name under which the token server knows the registry.
    pub(super) service: Option<String>,
    /// What the token must be good for, where the registry says it.
    pub(super) scopes: Vec<String>,
    /// Whether the token that was shown is a good one that does not reach far enough (RFC 6750, section 3.1).
    pub(super) insufficient: bool,
}

impl Challenge {
    /// The challenges among these header lines that we can response, in their order; others, such as `Negotiate`, are
    /// passed over, and so is what cannot be read.
    pub(super) fn all<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let known = lines.into_iter().flat_map(parse).filter_map(|(scheme, parameters)| {
            let parameter = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
            };
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => Some(Self::Basic),
                "bearer" => Some(Self::Bearer(Realm {
                    address: parameter("realm")?,
                    service: parameter("service"),
                    scopes: parameter("scope")
                        .iter()
                        .flat_map(|scope| scope.split_whitespace().map(str::to_owned))
                        .collect(),
                    insufficient: parameter("error").as_deref() == Some("insufficient_scope"),
                })),
                _ => None,
            }
        });
        known.take(LIMIT).collect()
    }

    /// Whether a header is an response to this challenge, good or bad.
    pub(super) fn is_answered_by(&self, header: &HeaderValue) -> bool {
        let scheme: &[u8] = match self {
            Self::Basic => b"Basic ",
            Self::Bearer(_) => b"Bearer ",
        };
        header.as_bytes().starts_with(scheme)
    }

    /// Whether more rights are asked for, and not another person.
    pub(super) fn wants_more(&self) -> bool {
        matches!(self, Self::Bearer(realm) if realm.insufficient)
    }
}

/// How many challenges of one response are tried.
const LIMIT: usize = 8;

type Parsed = (String, Vec<(String, String)>);

/// The challenges of one header line. Commas separate both challenges and their parameters: a word that no
/// `=` follows begins the next challenge.
fn parse(line: &str) -> Vec<Parsed> {
    let mut challenges: Vec<Parsed> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, behind) = split_word(rest);
        if word.is_empty() {
            // Nothing that the grammar knows, such as the dots and slashes of a Negotiate token: skip it.
            let mut skipped = rest.chars();
            match skipped.next() {
                Some(_) => rest = skipped.as_str(),
                None => return challenges,
            }
            continue;
        }
        match behind.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, behind) = split_value(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = behind;
            }
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = behind;
            }
        }
    }
}

/// Splits off what RFC 9110 calls a token.
fn split_word(text: &str) -> (&str, &str) {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_word(c)).unwrap_or(text.len()))
}

/// Splits off a value: a quoted string, or everything up to the next comma or space.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Option<Challenge> {
        Some(Challenge::Bearer(Realm {
            address: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            insufficient: false,
        }))
    }

    #[test]
    fn the_challenges_of_real_registries_are_understood() {
        for (line, challenge) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    &["repository:a/b:pull,push"],
                ),
            ),
            (r#"BASIC realm="Sonatype Nexus Repository Manager""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Basic realm="x", charset="UTF-8""#, Some(Challenge::Basic)),
            (r#"bearer Realm = "https://a/t" , SERVICE=s"#, bearer("https://a/t", Some("s"), &[])),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            (r#"Negotiate YII/+ab==, Bearer realm="https://a/t""#, bearer("https://a/t", None, &[])),
            (
                r#"Digest realm="a, Basic realm=\"b\"", Bearer realm="https://a/t""#,
                bearer("https://a/t", None, &[]),
            ),
            (r#"Bearer realm="https://a/\"t\\""#, bearer(r#"https://a/"t\"#, None, &[])),
            (r#"Bearer service="without a realm""#, None),
            (r#"Bearer realm="""#, None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::all([line]), Vec::from_iter(challenge), "{line}");
        }
    }

    #[test]
    fn all_that_can_be_answered_are_found_in_their_order_in_one_line_and_in_several() {
        let [first, second] = ["https://a/t", "https://b/t"].map(|realm| bearer(realm, None, &[]).unwrap());
        let all = [first.clone(), Challenge::Basic, second.clone()];
        let lines = ["Negotiate", r#"Bearer realm="https://a/t""#, "Basic", r#"Bearer realm="https://b/t""#];
        assert_eq!(Challenge::all(lines), all);
        assert_eq!(Challenge::all([lines.join(", ").as_str()]), all);
        let [_, _, basic, _] = lines;
        assert_eq!(
            Challenge::all([basic, r#"Bearer service="no realm", Bearer realm="https://b/t""#]),
            all[1..]
        );
        assert_eq!(Challenge::all(["Basic, ".repeat(100).as_str()]).len(), LIMIT);
    }

    #[test]
    fn a_challenge_may_name_several_scopes_and_say_that_they_are_missing() {
        let line = r#"Bearer realm="https://a/t",error="insufficient_scope",scope="repository:a:pull  repository:b:pull,push""#;
        let challenge = Challenge::all([line]).remove(0);
        assert!(challenge.wants_more());
        let Challenge::Bearer(realm) = challenge else { unreachable!() };
        assert_eq!(realm.scopes, ["repository:a:pull", "repository:b:pull,push"]);
        assert!(
            !Challenge::all([r#"Bearer realm="https://a/t",error="invalid_token""#]).remove(0).wants_more()
        );
    }

    #[test]
    fn no_line_makes_the_parser_panic_or_run_forever() {
        for line in
            ["=", "==,=", "\"", "Bearer realm=\"", "Bearer realm=\"\\", "Bearer é=ü, €", ",,, ,", "a b c d"]
        {
            let _ = parse(line);
        }
    }
}
