//! The polls of a watch: their number, and the effect of failures.

use super::{Lab, PERIOD, link};
use crate::registry::{Login, Refusal};
use axum::http::Method;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use volio::error::Kind;
use volio::progress::Silent;
use volio::service::publish::{Publication, version_name};
use volio::service::watch::Purpose;
use volio::sign::sign;
use volio::stream::Unverified;
use volio::transport::{Access, CredentialSource, Source};
use volio::{
    Descriptor, Document, Error, PublicKey, Result, SignaturePolicy, SignedPart, SignedSource,
    VerificationCache,
};

#[test]
fn every_version_is_published_also_an_old_one_that_comes_back() {
    for publication in [link(), Publication::InPlace] {
        let lab = Lab::new();
        let name = if publication == Publication::InPlace { "" } else { "current" };
        lab.push("1");
        let run = lab.run(8).with(|options| options.publication = publication);
        let expect = |content: &'static str| move |lab: &Lab| assert_eq!(lab.published(name), content);
        let run = run.before_poll(1, expect("1"));
        let run = run.before_poll(2, |lab| _ = lab.push("2")).before_poll(3, expect("2"));
        let run = run.before_poll(4, |lab| _ = lab.push("1")).before_poll(5, expect("1"));
        let run = run.before_poll(6, |lab| _ = lab.push("3"));
        run.go().unwrap();
        assert_eq!(lab.published(name), "3");
        if !name.is_empty() {
            let target = fs::read_link(lab.at("target/current")).unwrap();
            assert_eq!(target.to_str().unwrap(), version_name(&lab.push("3")));
        }
        assert_eq!(lab.log().all().iter().filter(|line| line.contains("published")).count(), 4);
    }
}

/// watchtower#669, watchtower#861, watchtower#1199 and nicholas-fedor/watchtower#345: a HEAD that a registry refuses, and
/// then a pull at each poll.
#[test]
fn a_poll_is_one_request_for_the_manifest() {
    let lab = Lab::new();
    lab.push("1");
    lab.registry().behave(|behaviour| behaviour.head_status = Some(405));
    let seen = Arc::new(AtomicUsize::new(0));
    let after_first = Arc::clone(&seen);
    let run = lab.run(30).before_poll(1, move |lab| after_first.store(lab.requests().1, Ordering::SeqCst));
    run.go().unwrap();
    let (manifests, others) = lab.requests();
    assert_eq!(others, seen.load(Ordering::SeqCst), "only the first poll fetches anything");
    assert!((30..=32).contains(&manifests), "{manifests}");
    // One line about it, and no more.
    assert_eq!(lab.log().all().len(), 2, "{:?}", lab.log().all());
}

/// keel#845: the first look counted as the state that is wanted.
#[test]
fn what_changed_while_nothing_ran_is_found_at_the_start_and_what_did_not_is_not_fetched() {
    let lab = Lab::new();
    lab.push("1");
    lab.run(1).go().unwrap();
    lab.push("2");
    lab.run(1).go().unwrap();
    assert_eq!(lab.published("current"), "2");
    let before = lab.requests();
    lab.run(1).go().unwrap();
    assert_eq!(lab.requests(), (before.0 + 1, before.1));
}

#[test]
fn a_tag_that_is_deleted_leaves_the_data_and_one_that_comes_back_is_followed() {
    let lab = Lab::new();
    let first = lab.push("1");
    let delete = move |lab: &Lab| {
        lab.registry().location("data", "v1").removal(&Access::default()).unwrap().remove(true).unwrap();
    };
    let run =
        lab.run(120).before_poll(1, delete).before_poll(10, |lab| assert_eq!(lab.published("current"), "1"));
    let run = run.after(PERIOD * 40, |lab| _ = lab.push("2"));
    run.go().unwrap();
    assert_eq!(lab.published("current"), "2");
    let lines = lab.log().all();
    let failures: Vec<_> =
        lines.iter().filter(|line| line.contains("cannot find") || line.contains("find ")).collect();
    assert_eq!(failures.len(), 1, "{lines:?}");
    assert!(lab.log().has("can be followed again"), "{lines:?}");
    assert!(lab.log().has(&first.to_string()));
}

/// nicholas-fedor/watchtower#761
#[test]
fn an_outage_is_logged_once_and_polled_less_and_less_often() {
    let lab = Lab::new();
    lab.push("1");
    let outage = |lab: &Lab| lab.registry().behave(|behaviour| behaviour.limits_requests = Some(0));
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let hour = Duration::from_secs(3600);
    let run = lab
        .run(1)
        .before_poll(1, outage)
        .after(hour * 23, move |lab| count.store(lab.polls(), Ordering::SeqCst));
    let run = run.after(hour * 24, |lab| {
        lab.registry().behave(|behaviour| behaviour.limits_requests = None);
        lab.push("2");
    });
    let run = super::Run { until: hour * 25, ..run };
    run.go().unwrap();
    assert_eq!(lab.published("current"), "2");
    let polls = requests.load(Ordering::SeqCst);
    assert!((220..460).contains(&polls), "{polls} in 23 hours");
    let errors = lab.log().all().iter().filter(|line| line.contains("503 Service")).count();
    assert_eq!(errors, 1, "{:?}", lab.log().all());
}

#[test]
fn a_registry_that_asks_for_an_hour_gets_it() {
    let lab = Lab::new();
    lab.push("1");
    let refusal = Refusal {
        method: Method::GET,
        path: "manifests/v1",
        status: 429,
        retry_after: Some("3600".to_owned()),
        ..Refusal::default()
    };
    let run = lab.run(500).before_poll(1, move |lab| {
        lab.push("2");
        lab.registry().behave(|behaviour| behaviour.refusals = vec![refusal]);
    });
    let before = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&before);
    let run = run.after(Duration::from_secs(1800), move |lab| count.store(lab.polls(), Ordering::SeqCst));
    run.after(Duration::from_secs(3600), move |lab| assert_eq!(lab.polls(), before.load(Ordering::SeqCst)))
        .go()
        .unwrap();
    assert_eq!(lab.published("current"), "2");
}

/// git-sync#161 and git-sync#980
#[test]
fn failures_before_the_first_success_and_after_it_have_limits_of_their_own() {
    let lab = Lab::new();
    let error = lab.run(100).with(|options| options.init_failures = Some(1)).go().unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let error = lab.run(1000).with(|options| options.init_failures = Some(4)).go().unwrap_err();
    assert!(error.to_string().contains("giving up after 4 failures in a row"), "{error}");
    // It goes on until the image is there. The other limit does not count before that.
    let run = lab.run(100).with(|options| options.max_failures = Some(1));
    let run = run.before_poll(20, |lab| _ = lab.push("1"));
    let run =
        run.before_poll(90, |lab| lab.registry().behave(|behaviour| behaviour.limits_requests = Some(0)));
    assert_eq!(run.go().unwrap_err().status(), Some(503));
    assert_eq!(lab.published("current"), "1");
}

/// config-sync#1332
#[test]
fn a_digest_is_synced_once_and_not_polled() {
    let lab = Lab::new();
    let digest = lab.push("1");
    let location = format!("{}/data@{digest}", lab.registry().host());
    let mut run = lab.run(100).with(|options| options.is_pinned = true);
    run.open = lab.opener(&location);
    let run = run.before_poll(50, |lab| fs::remove_file(lab.at("target/current")).unwrap());
    run.go().unwrap();
    assert_eq!(lab.published("current"), "1", "a link that was removed is made again");
    let asked = lab.registry().paths(Method::GET).iter().filter(|path| path.contains("manifests")).count();
    assert!(asked <= 5, "{asked}");
}

/// git-sync#976
#[test]
fn credentials_that_are_replaced_are_read_at_the_next_poll() {
    let lab = Lab::new();
    lab.push("1");
    let config = lab.at("config.json");
    let write = |lab: &Lab, password: &str| {
        let host = lab.registry().host();
        let entry = format!(r#"{{"auths":{{"{host}":{{"username":"user","password":"{password}"}}}}}}"#);
        fs::write(lab.at("config.json"), entry).unwrap();
    };
    write(&lab, "wrong");
    lab.registry().behave(|behaviour| behaviour.login = Login::Basic { user: "user:password" });
    let mut run = lab.run(60);
    let (again, location) = (lab.clone(), lab.registry().location("data", "v1"));
    run.open = Arc::new(move |purpose: Purpose| {
        let credentials = vec![CredentialSource::File(config.clone())];
        location.source(&Access { credentials, ..again.access(purpose) })
    });
    let run = run.before_poll(5, move |lab| {
        assert_eq!(lab.published("current"), "");
        write(lab, "password");
    });
    run.go().unwrap();
    assert_eq!(lab.published("current"), "1", "{:?}", lab.log().all());
}

/// A source that cannot prove where its image is from.
struct Unsigned(Box<dyn Source>);

impl Source for Unsigned {
    fn resolve(&self) -> Result<Document> {
        self.0.resolve().and_then(|_| Err(Error::integrity("the image has no signature by this key")))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        self.0.open(descriptor)
    }
}

/// flux-mirror#16
#[test]
fn an_image_without_a_signature_is_not_published() {
    let lab = Lab::new();
    lab.push("1");
    let is_signed = Arc::new(AtomicUsize::new(1));
    let mut run = lab.run(60);
    let (again, location, signed) =
        (lab.clone(), lab.registry().location("data", "v1"), Arc::clone(&is_signed));
    run.open = Arc::new(move |purpose| {
        let source = location.source(&again.access(purpose))?;
        Ok(if signed.load(Ordering::SeqCst) == 1 { source } else { Box::new(Unsigned(source)) })
    });
    let run = run.before_poll(1, move |lab| {
        is_signed.store(0, Ordering::SeqCst);
        lab.push("2");
    });
    run.go().unwrap();
    assert_eq!(lab.published("current"), "1");
    assert_eq!(lab.log().all().iter().filter(|line| line.contains("no signature")).count(), 1);
    assert_eq!(fs::read_dir(lab.at("target")).unwrap().count(), 3, "nothing of it is there");
}

/// git-sync#919
#[test]
fn an_occupied_name_ends_the_watch_at_once() {
    let lab = Lab::new();
    fs::create_dir_all(lab.at("target/current")).unwrap();
    let error = lab.run(10).go().unwrap_err();
    assert_eq!((error.kind(), lab.requests().0), (Kind::Refused, 0));
    // So does a directory that holds something else than an image.
    let lab = Lab::new();
    lab.push("1");
    fs::create_dir(lab.at("target")).unwrap();
    fs::write(lab.at("target/precious"), "data").unwrap();
    let run = lab.run(10).with(|options| options.publication = Publication::InPlace);
    assert_eq!(run.go().unwrap_err().kind(), Kind::Refused);
    assert_eq!(fs::read(lab.at("target/precious")).unwrap(), b"data");
}

#[test]
fn a_manifest_that_has_not_changed_is_not_sent_again_if_the_registry_has_entity_tags() {
    for has_entity_tags in [true, false] {
        let lab = Lab::new();
        let first = lab.push("1");
        lab.registry().behave(|behaviour| behaviour.has_entity_tags = has_entity_tags);
        let run = lab.run(20).before_poll(10, |lab| _ = lab.push("2"));
        // An old version that comes back has its old entity tag.
        run.before_poll(15, |lab| _ = lab.push("1")).go().unwrap();
        assert_eq!(lab.published("current"), "1");
        let requests = lab.registry().requests();
        let named: Vec<_> = requests.iter().filter_map(|request| request.header("if-none-match")).collect();
        assert_eq!(named.iter().filter(|named| **named == format!("\"{first}\"")).count(), 14, "{named:?}");
        let published = lab.log().all().iter().filter(|line| line.contains("published")).count();
        assert_eq!((named.len(), published), (19, 3), "{:?}", lab.log().all());
    }
}

#[test]
fn the_signature_of_a_version_is_verified_once_and_again_with_another_key() {
    let lab = Lab::new();
    let public = |name: &str| {
        let place = format!("{}/fixtures/keys/{name}.pub", env!("CARGO_MANIFEST_DIR"));
        PublicKey::read(Path::new(&place)).unwrap()
    };
    let push = |lab: &Lab, content: &str| {
        let digest = lab.push(content);
        let location = lab.registry().location("data", "v1");
        let (from, access) = (location.source(&Access::default()).unwrap(), Access::default());
        let to = location.attachment_destination(&access).unwrap();
        sign(&*from, &*to, &crate::signatures::signer("signer"), &Silent).unwrap();
        digest
    };
    push(&lab, "1");
    let key = Arc::new(Mutex::new("signer"));
    let (again, location, used) = (lab.clone(), lab.registry().location("data", "v1"), Arc::clone(&key));
    let cache = Arc::<VerificationCache>::default();
    let mut run = lab.run(60);
    run.open = Arc::new(move |purpose| {
        let policy = SignaturePolicy::from_keys(vec![public(*used.lock().unwrap())]);
        let source = location.source(&again.access(purpose))?;
        let signed = SignedSource::new(source, &location, &policy, SignedPart::Platform(None))?;
        Ok(Box::new(signed.with_cache(&cache)))
    });
    let seen = Arc::new(AtomicUsize::new(0));
    let (before, after) = (Arc::clone(&seen), Arc::clone(&seen));
    let run = run.before_poll(2, move |lab| before.store(lab.requests().1, Ordering::SeqCst));
    let run = run.before_poll(10, move |lab| {
        assert_eq!(lab.requests().1, after.load(Ordering::SeqCst), "only the manifest is asked for");
        push(lab, "2");
    });
    let run = run.before_poll(12, move |lab| {
        assert_eq!(lab.published("current"), "2");
        *key.lock().unwrap() = "other";
    });
    run.go().unwrap();
    let lines = lab.log().all();
    assert!(lines.last().unwrap().contains("is not signed as required"), "{lines:?}");
}
