//! Incremental packs that are signed: the new signature is about the layers of the base too.

use super::{Place, public, signer, write};
use std::sync::Arc;
use volio::error::Kind;
use volio::pack::{self, Base, ImageForm, IncrementalOptions, Packed, pack_incremental};
use volio::progress::Silent;
use volio::transport::{Access, Source};
use volio::{Result, SignaturePolicy, SignedPart, SourceSpec};

fn pack_again(place: &Place, base: &Base, content: &str, key: &str) -> Result<Packed> {
    let tree = place.path("tree");
    write(&tree, content);
    let options = pack::Options { signer: Some(Arc::new(signer(key))), ..pack::Options::default() };
    let incremental = IncrementalOptions { max_dead: 100, ..IncrementalOptions::default() };
    let to = place.location.destination(&Access::default()).unwrap();
    pack_incremental(&*to, base, &[SourceSpec::new(&tree)], &options, &incremental, &Silent)
}

fn current(place: &Place) -> Base {
    Base::current(place.location.clone(), Access::default())
}

fn form(packed: &Packed) -> &ImageForm {
    &packed.incremental.as_ref().unwrap().form
}

#[test]
fn a_base_that_is_signed_by_the_same_key_is_reused() {
    let place = Place::registry();
    place.pack("one", Some(signer("signer")));
    let packed = pack_again(&place, &current(&place), "two", "signer").unwrap();
    assert_eq!(form(&packed), &ImageForm::Delta);
    place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();

    let unchanged = pack_again(&place, &current(&place), "two", "signer").unwrap();
    assert_eq!(form(&unchanged), &ImageForm::Unchanged);
    assert_eq!((unchanged.signed.unwrap().added, unchanged.signed.unwrap().present), (0, 6));
}

#[test]
fn layers_that_somebody_else_has_stored_are_not_signed() {
    let place = Place::registry();
    place.pack("one", None);
    place.sign("other");
    let packed = pack_again(&place, &current(&place), "two", "signer").unwrap();
    assert!(matches!(form(&packed), ImageForm::Full(reason) if reason.to_string().contains("not signed")));
    place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();

    // A base that the user names must be right.
    let place = Place::registry();
    place.pack("one", None);
    let named = Base::image(place.location.clone(), Access::default());
    let error = pack_again(&place, &named, "two", "signer").unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
}

#[test]
fn a_base_by_another_key_is_reused_if_that_key_is_trusted() {
    let place = Place::registry();
    place.pack("one", Some(signer("other")));
    let policy = Arc::new(SignaturePolicy::from_keys(vec![public("other")]));
    let base = current(&place).signed_as(Arc::clone(&policy));
    let packed = pack_again(&place, &base, "two", "signer").unwrap();
    assert_eq!(form(&packed), &ImageForm::Delta);

    // Nothing has changed: the image gets the signature that it lacks.
    let place = Place::registry();
    place.pack("one", Some(signer("other")));
    let base = current(&place).signed_as(policy);
    let unchanged = pack_again(&place, &base, "one", "signer").unwrap();
    assert_eq!(form(&unchanged), &ImageForm::Unchanged);
    place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();
}

#[test]
fn a_dry_run_signs_nothing() {
    for place in [Place::registry(), Place::layout(), Place::archive()] {
        place.pack("one", Some(signer("other")));
        let tree = place.path("tree");
        write(&tree, "two");
        let options = pack::Options { signer: Some(Arc::new(signer("signer"))), ..pack::Options::default() };
        let incremental =
            IncrementalOptions { effect: pack::Effect::DryRun, ..IncrementalOptions::default() };
        let policy = Arc::new(SignaturePolicy::from_keys(vec![public("other")]));
        for (base, content) in [(current(&place), "two"), (current(&place).signed_as(policy), "one")] {
            write(&tree, content);
            let before = place.source().tags().unwrap();
            let to = place.location.destination(&Access::default()).unwrap();
            pack_incremental(&*to, &base, &[SourceSpec::new(&tree)], &options, &incremental, &Silent)
                .unwrap();
            assert_eq!(place.source().tags().unwrap(), before, "{}", place.location);
            let error = place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity);
        }
    }
}
