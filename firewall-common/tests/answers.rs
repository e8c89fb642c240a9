//! Who is asked, who is believed, and for how long.

use firewall_common::{
    answers::{DNS, MULTICAST, NO_DNS, lifetime},
    evaluate::{NAMES, Named},
    flow::{Address, Destination, UDP},
    layout::{Answer, Answers, Header, Resolver, flags},
    verdict::Verdict,
};

#[test]
fn ports_of_questions() {
    let mut header = Header::default();
    for (port, service) in
        [(53, DNS), (5353, MULTICAST), (5355, MULTICAST), (0, NO_DNS), (853, NO_DNS)]
    {
        assert_eq!(header.service(port), service, "{port}");
    }
    header.dns_ports[7] = 853;
    header.dns_ports[2] = 5353;
    for (port, service) in [(53, DNS), (5353, DNS), (5355, MULTICAST), (0, NO_DNS), (853, DNS)] {
        assert_eq!(header.service(port), service, "{port}");
    }
}

#[test]
fn resolvers_are_trusted_by_address_and_port() {
    let at = |address, port| Destination { address, port, protocol: UDP, port_hidden: 0 };
    let (one, other) = (Address::v4(0x0808_0808), Address { high: 1, low: 1 });
    let mut header = Header::default();
    assert!(!header.is_trusted(&at(Address::default(), 0)), "a place without a resolver is none");
    header.resolvers[0] = Resolver { address: one, port: 53, _pad: 0 };
    header.resolvers[7] = Resolver { address: other, port: 5300, _pad: 0 };
    for (address, port, trusted) in
        [(one, 53, true), (other, 5300, true), (one, 5300, false), (other, 53, false)]
    {
        assert_eq!(header.is_trusted(&at(address, port)), trusted, "{address:?} {port}");
    }
}

#[test]
fn a_name_is_kept_for_five_minutes_at_least() {
    for (time_to_live, seconds) in [
        (0, 300),
        (299, 300),
        (301, 301),
        (0x7fff_ffff, 0x7fff_ffff),
        (0x8000_0000, 300),
        (u32::MAX, 300),
    ] {
        assert_eq!(lifetime(time_to_live), seconds, "{time_to_live}");
    }
}

#[test]
fn settings_say_what_is_let_through_unseen() {
    let with = |flags| {
        let header = Header { flags, ..Header::default() };
        (header.no_name(), header.unparsable())
    };
    assert_eq!(with(0), (Verdict::Deny, Verdict::Deny));
    assert_eq!(with(flags::AMBIGUOUS_ALLOW), (Verdict::Audit, Verdict::Deny));
    assert_eq!(with(flags::UNPARSABLE_ALLOW), (Verdict::Deny, Verdict::Audit));
}

/// A name that rules know by `class`, by its hash.
fn answer(name: u64, class: u32, until: u32) -> Answer {
    Answer { name, named: Named { classes: [class, 0, 0, 0], trusted: 1 }, until }
}

/// What is kept: names with their ends.
fn kept(answers: &Answers) -> [(u64, u32); NAMES] {
    answers.names.map(|one| (one.name, one.until))
}

#[test]
fn a_name_takes_its_own_place_or_a_free_one_or_that_of_the_first_to_end() {
    let mut answers = Answers::default();
    for (name, until) in [(1, 400), (2, 350), (3, 500), (4, 600)] {
        assert_eq!(answers.keep(&answer(name, name as u32, until), false, 10), name as usize - 1);
    }
    // Its own, and no sooner gone than it was said before.
    assert_eq!(answers.keep(&answer(3, 3, 450), false, 150), 2);
    assert_eq!(kept(&answers), [(1, 400), (2, 350), (3, 500), (4, 600)]);
    assert_eq!(answers.keep(&answer(3, 3, 550), false, 250), 2);
    assert_eq!((kept(&answers)[2], answers.several, answers.more_until), ((3, 550), 0, 0));
    // Rules cannot tell it from another: it stands for both.
    assert_eq!(answers.keep(&answer(30, 3, 500), false, 200), 2);
    assert_eq!((kept(&answers)[2], answers.several), ((30, 550), 0b100));
    // All places are taken: the first to end is pushed out, and until then there are more.
    assert_eq!(answers.keep(&answer(5, 5, 560), false, 260), 1);
    assert_eq!((kept(&answers)[1], answers.more_until), ((5, 560), 350));
    // One has ended.
    assert_eq!(answers.keep(&answer(6, 6, 700), false, 400), 0);
    assert_eq!((kept(&answers)[0], answers.more_until, answers.several), ((6, 700), 350, 0b100));
    // What takes the place of several is one again.
    assert_eq!(answers.keep(&answer(7, 7, 900), false, 550), 2);
    assert_eq!((kept(&answers)[2], answers.several), ((7, 900), 0));
    // There are aliases that nothing is kept of.
    assert_eq!(answers.keep(&answer(7, 7, 950), true, 600), 2);
    assert_eq!(answers.more_until, 950);
}

#[test]
fn what_is_told_by_another_is_another_name() {
    let mut answers = Answers::default();
    let told = answer(1, 1, 400);
    let claimed = Answer { named: Named { trusted: 0, ..told.named }, ..told };
    assert_eq!((answers.keep(&told, false, 1), answers.keep(&claimed, false, 1)), (0, 1));
}

#[test]
fn the_name_that_is_shown_is_meant() {
    let mut answers = Answers::default();
    for (name, class, until) in [(1, 0, 400), (2, 8, 350), (3, 9, 500)] {
        answers.keep(&answer(name, class, until), false, 10);
    }
    assert_eq!(answers.meant(20, None), 0b111);
    assert_eq!(answers.meant(350, None), 0b101, "what has ended does not hold");
    assert_eq!(answers.meant(500, None), 0);
    assert_eq!(answers.meant(20, Some((2, 8))), 0b010);
    assert_eq!(answers.meant(350, Some((2, 8))), 0);
    assert_eq!(answers.meant(20, Some((7, 9))), 0, "another name of the class");
    answers.keep(&answer(4, 9, 500), false, 20);
    assert_eq!(answers.meant(20, Some((7, 9))), 0b100, "it can be one that was not kept");
    assert_eq!(answers.meant(20, Some((4, 9))), 0b100);
    assert_eq!(answers.meant(i32::MAX as u32, None), 0, "an empty place never holds");
}
