//! Credentials for a registry or its token server.

use crate::transport::Secret;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 that is decoded with and without padding: programs write both.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The user name that marks the password as an identity token, by a convention of Docker's.
const TOKEN_USERNAME: &str = "<token>";

/// Credentials of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user name and a password.
    Password { username: String, password: Secret },
    /// A token that the token server exchanges for tokens of the registry. The user name is for servers that accept
    /// the token as a password.
    Identity { username: String, token: Secret },
    /// A token of the registry itself.
    Registry(Secret),
}

impl Credentials {
    /// Returns a user name with its password, which is an identity token if the name is `<token>`.
    pub(super) fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, secret) = (username.into(), Secret::new(password));
        if username == TOKEN_USERNAME {
            Self::Identity { username, token: secret }
        } else {
            Self::Password { username, password: secret }
        }
    }

    /// Returns an identity token with the user name that stands beside it, if any.
    pub(super) fn identity(username: Option<String>, token: Secret) -> Self {
        let username = username.filter(|name| !name.is_empty());
        Self::Identity { username: username.unwrap_or_else(|| TOKEN_USERNAME.to_owned()), token }
    }

    /// Returns the value of an `Authorization` header for the registry or its token server.
    pub(super) fn header(&self) -> String {
        match self {
            Self::Password { username, password: secret } | Self::Identity { username, token: secret } => {
                format!("Basic {}", BASE64.encode(format!("{username}:{}", secret.reveal())))
            }
            Self::Registry(token) => format!("Bearer {}", token.reveal()),
        }
    }
}
