//! The `WWW-Authenticate` header of registries (RFC 9110, section 11.6.1).

use reqwest::header::HeaderValue;

/// A challenge of a known authentication scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user name and a password with every request.
    Basic,
    /// A token from a token server.
    Bearer(Realm),
}

/// A token server, and the token that it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Realm {
    /// The URL of the token server.
    pub(super) url: String,
    /// The name of the registry at the token server.
    pub(super) service: Option<String>,
    /// The scopes that the registry requires, if it names them.
    pub(super) scopes: Vec<String>,
    /// Set if the token that was sent is valid and lacks scopes (RFC 6750, section 3.1).
    pub(super) insufficient: bool,
}

impl Challenge {
    /// Parses the challenges in header lines, in order. Those of unknown schemes, such as `Negotiate`, and malformed
    /// ones are skipped.
    pub(super) fn all<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let known = lines.into_iter().flat_map(parse).filter_map(|(scheme, parameters)| {
            let parameter = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
            };
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => Some(Self::Basic),
                "bearer" => Some(Self::Bearer(Realm {
                    url: parameter("realm")?,
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

    /// Returns whether an `Authorization` header has the scheme of this challenge.
    pub(super) fn is_answered_by(&self, header: &HeaderValue) -> bool {
        let scheme: &[u8] = match self {
            Self::Basic => b"Basic ",
            Self::Bearer(_) => b"Bearer ",
        };
        header.as_bytes().starts_with(scheme)
    }

    /// Returns whether the token lacks scopes.
    pub(super) fn needs_more_scope(&self) -> bool {
        matches!(self, Self::Bearer(realm) if realm.insufficient)
    }
}

/// The maximum number of challenges that are tried of one response.
const LIMIT: usize = 8;

type Parsed = (String, Vec<(String, String)>);

/// Parses the challenges of one header line. Commas separate both challenges and their parameters: a word without `=`
/// after it begins the next challenge.
fn parse(line: &str) -> Vec<Parsed> {
    let mut challenges: Vec<Parsed> = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = split_word(rest);
        if word.is_empty() {
            // Characters that are not in the grammar, such as those of a Negotiate token, are skipped.
            let mut skipped = rest.chars();
            match skipped.next() {
                Some(_) => rest = skipped.as_str(),
                None => return challenges,
            }
            continue;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            Some(value) => {
                let (value, after) = split_value(value.trim_start_matches([' ', '\t']));
                if let Some((_, parameters)) = challenges.last_mut() {
                    parameters.push((word.to_owned(), value));
                }
                rest = after;
            }
            None => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// Splits off a token (RFC 9110, section 5.6.2).
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
            url: realm.to_owned(),
            service: service.map(str::to_owned),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            insufficient: false,
        }))
    }

    #[test]
    fn the_challenges_of_real_registries_are_parsed() {
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
    fn several_challenges_are_parsed_in_order_from_one_line_and_from_several() {
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
    fn a_challenge_may_name_several_missing_scopes() {
        let line = r#"Bearer realm="https://a/t",error="insufficient_scope",scope="repository:a:pull  repository:b:pull,push""#;
        let challenge = Challenge::all([line]).remove(0);
        assert!(challenge.needs_more_scope());
        let Challenge::Bearer(realm) = challenge else { unreachable!() };
        assert_eq!(realm.scopes, ["repository:a:pull", "repository:b:pull,push"]);
        assert!(
            !Challenge::all([r#"Bearer realm="https://a/t",error="invalid_token""#])
                .remove(0)
                .needs_more_scope()
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
