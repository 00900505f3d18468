//! The string is read back in every form, and a damaged or forged string, or one of another
//! version, is told apart.

use proptest::prelude::*;

use serde::Serialize;

use super::*;
use crate::address::Address;
use crate::address::tests::address;
use crate::id::{DataCenterId, NodeId};
use crate::identity::{Domain, Keypair};

const LONG: &str = include_str!("long.txt");
const LONG_BARE: &str = include_str!("long_bare.txt");
const SHORT: &str = include_str!("short.txt");
const NAMED: &str = include_str!("named.txt");

fn sample() -> JoinInformation {
    let issuer = Keypair::from_seed([1; 32]);
    let secret = Secret::new([5; 16]);
    let terms = Terms {
        datacenter: DataCenterId([2; 16]),
        datacenter_name: "Home Lab".into(),
        issuer: issuer.node_id(),
        issuer_name: "pve-1".into(),
        invite: secret.key().invite_id(),
        seeds: vec![Seed {
            node: issuer.node_id(),
            addresses: vec![
                "192.0.2.1:4747".parse().unwrap(),
                "[2001:db8::1]:4747".parse().unwrap(),
            ],
        }],
        issued_ms: 1,
        expires_ms: 2,
        uses: Some(3),
        node_name: Some("pve-*".into()),
        strict: false,
    };
    JoinInformation { invitation: Invitation::issue(terms, &issuer), secret: Some(secret) }
}

#[test]
fn the_string_reads_back_also_across_line_breaks() {
    let token = sample();
    let text = token.to_string();
    assert_eq!(JoinInformation::parse(&text).unwrap(), token);
    let broken: Vec<String> =
        text.as_bytes().chunks(60).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
    assert_eq!(JoinInformation::parse(&broken.join("\r\n ")).unwrap(), token);
}

#[test]
fn every_altered_or_missing_character_is_noticed() {
    let text = sample().to_string();
    for at in 0..text.len() {
        let mut altered = text.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(JoinInformation::parse(&altered).is_err(), "altered at {at}");
        assert!(JoinInformation::parse(&text[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_string_without_the_secret_opens_with_the_password() {
    let whole = sample();
    let bare = JoinInformation { secret: None, ..whole.clone() };
    let read = JoinInformation::parse(&bare.to_string()).unwrap();
    assert_eq!(read.secret, None);
    let password = whole.secret.unwrap().password();
    let secret = Secret::from_password(&password.to_uppercase().replace('-', " ")).unwrap();
    assert!(read.opens_with(&secret));
    assert!(!read.opens_with(&Secret::new([6; 16])));
    assert_eq!(Secret::from_password("nonsense!").unwrap_err(), TokenError::Password);
}

#[test]
fn what_editors_and_chats_put_in_does_not_matter() {
    let token = sample();
    let text = token.to_string();
    let (head, tail) = text.split_at(50);
    let handed = format!("\u{feff}# for pve-7\r\n{head}\u{200b}\r\n# more\r\n {tail}\r\n");
    assert_eq!(JoinInformation::parse(&handed).unwrap(), token);
    let password = format!("\u{feff}{}\r\n", token.secret.unwrap().password());
    assert!(Secret::from_password(&password).is_ok());
}

#[test]
fn a_string_is_whole_where_its_length_and_its_checksum_say_so() {
    let whole = sample();
    let bare = JoinInformation { secret: None, ..whole.clone() };
    for text in [whole.to_string(), bare.to_string()] {
        for at in 0..text.len() {
            assert_eq!(progress(&text[..at]), Progress::More, "the first {at}");
        }
        assert_eq!(progress(&text), Progress::Whole);
        assert_eq!(
            progress(&format!("\u{feff}{}\r\n{}", &text[..70], &text[70..])),
            Progress::Whole
        );
    }
    let mut damaged = whole.to_string();
    damaged.replace_range(60..61, if &damaged[60..61] == "A" { "B" } else { "A" });
    for wrong in
        [&damaged, &format!("{whole}A"), "hello", "peerage2-AAAA", "peerage1-!", "peerage1-zzzz"]
    {
        assert_eq!(progress(wrong), Progress::Wrong, "{wrong}");
    }
    assert_eq!(progress(""), Progress::More);
}

#[test]
fn strings_of_the_long_form_are_still_read() {
    let whole = sample();
    let bare = JoinInformation { secret: None, ..whole.clone() };
    for (text, token) in [(LONG, whole), (LONG_BARE, bare)] {
        assert_eq!(JoinInformation::parse(text).unwrap(), token);
        let text = text::one_word(text);
        assert_eq!(progress(&text), Progress::Whole);
        for at in 0..text.len() {
            assert_ne!(progress(&text[..at]), Progress::Whole, "the first {at}");
            assert!(JoinInformation::parse(&text[..at]).is_err(), "cut at {at}");
        }
        assert!(token.to_string().len() < text.len() * 3 / 5);
    }
}

/// A newer version adds a field to the terms, and its issuers sign a field that this version does
/// not know.
#[test]
fn terms_in_another_spelling_keep_it() {
    #[derive(Serialize)]
    struct Newer {
        #[serde(flatten)]
        terms: Terms,
        colour: &'static str,
    }
    let issuer = Keypair::from_seed([1; 32]);
    let JoinInformation { invitation, secret } = sample();
    let body = codec::encode(&Newer { terms: invitation.terms, colour: "red" });
    let signature = issuer.sign(Domain::Invite, &body);
    let invitation = Invitation::verify(&body, &signature).unwrap();
    let token = JoinInformation { invitation, secret };
    assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
    assert_eq!(token.invitation.body(), body);
}

#[test]
fn the_short_form_stays_as_it_is() {
    assert_eq!(sample().to_string(), text::one_word(SHORT));
}

fn named() -> JoinInformation {
    let JoinInformation { invitation, secret } = sample();
    let mut terms = invitation.terms;
    terms.seeds[0].addresses[0] = "pve-1.example.org:4747".parse().unwrap();
    let invitation = Invitation::issue(terms, &Keypair::from_seed([1; 32]));
    JoinInformation { invitation, secret }
}

#[test]
fn a_name_in_a_string_takes_its_letters_and_one_byte_more() {
    let text = named().to_string();
    assert_eq!(text, text::one_word(NAMED));
    assert_eq!(JoinInformation::parse(&text).unwrap(), named());
    let bytes = |text: &str| BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
    let instead_of_ipv4 = "pve-1.example.org".len() + 1 - 4;
    assert_eq!(bytes(&text).len(), bytes(&sample().to_string()).len() + instead_of_ipv4);
}

/// The terms name as many seeds as there may be, each with as many of the longest host names as it
/// may have.
#[test]
fn terms_with_many_long_names_do_not_fit_and_those_of_one_seed_do() {
    let JoinInformation { invitation, .. } = sample();
    let mut terms = invitation.terms;
    let name = |n: usize| format!("{n}{}.lan:4747", ".a-part-of-a-name".repeat(14));
    let addresses: Vec<Address> = (1..=4).map(|n| name(n).parse().unwrap()).collect();
    terms.seeds = vec![Seed { node: NodeId([3; 32]), addresses }; SEEDS_MAX];
    assert!(!terms.fit());
    terms.seeds.truncate(1);
    assert!(terms.fit());
    let token = issued(terms, true);
    assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
}

#[test]
fn a_name_that_is_none_is_damage() {
    let text = named().to_string();
    let mut bytes = BASE64URL_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
    let at = bytes.windows(5).position(|window| window == b"pve-1").unwrap();
    // The issuer's name comes first, the name of the seed's address after it.
    let at = at + 1 + bytes[at + 1..].windows(5).position(|w| w == b"pve-1").unwrap();
    bytes[at] = b'-';
    let end = bytes.len() - CHECK_LEN;
    let check = checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&check);
    let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
    assert_eq!(JoinInformation::parse(&text).unwrap_err(), TokenError::Damaged);
}

/// Somebody who does not have the issuer's key put this string together.
#[test]
fn terms_that_nobody_signed_are_forged_in_the_short_form_too() {
    let JoinInformation { invitation, secret } = sample();
    let terms = Terms { uses: Some(99), ..invitation.terms };
    let body = codec::encode(&terms).into();
    let invitation = Invitation { terms, body, signature: invitation.signature };
    let token = JoinInformation { invitation, secret };
    assert_eq!(JoinInformation::parse(&token.to_string()).unwrap_err(), TokenError::Forged);
}

#[test]
fn what_a_later_version_puts_in_is_of_another_version() {
    let later = |content: &[u8], form: u16| {
        let mut bytes = (form | content.len() as u16).to_be_bytes().to_vec();
        bytes.extend(content);
        bytes.extend(checksum(&bytes));
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        JoinInformation::parse(&text).unwrap_err()
    };
    assert_eq!(later(&[0x80; 60], Form::SHORT), TokenError::Version, "a mark");
    assert_eq!(later(&[0; 60], Form::BITS), TokenError::Version, "a form");
    assert_eq!(later(&[0; 60], Form::SHORT), TokenError::Damaged, "neither");
}

#[test]
fn other_texts_are_told_apart() {
    let told = |text: &str| JoinInformation::parse(text).unwrap_err();
    assert_eq!(told("hello"), TokenError::NotJoinInformation);
    assert_eq!(told("peerage2-AAAA"), TokenError::Version);
    assert_eq!(told("peerage1-AAAA"), TokenError::Damaged);
    assert_eq!(told(""), TokenError::NotJoinInformation);
}

/// A name of at most 16 bytes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,16}", "[a-z0-9-]{16}", "[äöüß]{1,8}", "[一-三]{1,5}"]
}

/// Terms without seeds, as they are made until the year 2109.
fn terms() -> impl Strategy<Value = Terms> {
    let times = (0..1_u64 << 42, 0..1_u64 << 42);
    let what = (name(), name(), any::<Option<u32>>(), any::<bool>());
    (any::<[u8; 16]>(), times, what).prop_map(|(datacenter, times, what)| Terms {
        datacenter: DataCenterId(datacenter),
        datacenter_name: what.0,
        issuer: Keypair::from_seed([1; 32]).node_id(),
        issuer_name: what.1,
        invite: Secret::new([5; 16]).key().invite_id(),
        seeds: Vec::new(),
        issued_ms: times.0,
        expires_ms: times.0 + times.1,
        uses: what.2,
        node_name: None,
        strict: what.3,
    })
}

fn issued(terms: Terms, with_secret: bool) -> JoinInformation {
    let invitation = Invitation::issue(terms, &Keypair::from_seed([1; 32]));
    let secret = with_secret.then(|| Secret::new([5; 16]));
    JoinInformation { invitation, secret }
}

proptest! {
    #[test]
    fn a_string_has_300_characters_and_60_more_for_each_further_seed(
        terms in terms(),
        seeds in prop::collection::vec(any::<([u8; 32], [u8; 4], u16)>(), 0..SEEDS_MAX),
        own in any::<([u8; 4], u16)>(),
        with_secret: bool,
    ) {
        let further = seeds.len();
        let seed = |node, address: ([u8; 4], u16)| {
            Seed { node, addresses: vec![Address::Ip(address.into())] }
        };
        let others = seeds.into_iter().map(|(id, ip, port)| seed(NodeId(id), (ip, port)));
        let seeds = std::iter::once(seed(terms.issuer, own)).chain(others).collect();
        let token = issued(Terms { seeds, ..terms }, with_secret);
        let text = token.to_string();
        prop_assert!(text.len() <= 300 + 60 * further, "{} characters: {text}", text.len());
        prop_assert_eq!(JoinInformation::parse(&text).unwrap(), token);
    }

    #[test]
    fn whatever_is_issued_is_read_back(
        terms in terms(),
        seeds in prop::collection::vec(
            (any::<[u8; 32]>(), prop::collection::vec(address(), 0..8)),
            0..=SEEDS_MAX,
        ),
        times: (u64, u64),
        node_name in prop::option::of("\\PC{0,64}"),
        with_secret: bool,
    ) {
        let seed = |(node, addresses)| Seed { node: NodeId(node), addresses };
        let seeds = seeds.into_iter().map(seed).collect();
        let (issued_ms, expires_ms) = times;
        let terms = Terms { seeds, issued_ms, expires_ms, node_name, ..terms };
        let token = issued(terms, with_secret);
        prop_assert_eq!(JoinInformation::parse(&token.to_string()).unwrap(), token);
    }

    #[test]
    fn arbitrary_content_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut short = Form::Short { content: bytes.len() }.opening().unwrap().to_vec();
        short.extend(&bytes);
        for mut whole in [bytes, short] {
            whole.extend(checksum(&whole));
            let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&whole));
            prop_assert!(JoinInformation::parse(&text).is_err());
        }
    }

    #[test]
    fn arbitrary_text_does_no_harm(text in "\\PC*") {
        prop_assert!(JoinInformation::parse(&text).is_err());
        prop_assert_ne!(progress(&text), Progress::Whole);
    }
}
