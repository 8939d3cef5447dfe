use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { fewest: 2, expected: 3, most: 4 };

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn newcomer(name: &str, bounds: Bounds) -> Arrival {
    Arrival {
        member: name.into(),
        host: format!("host-of-{name}"),
        address: format!("{name}:1"),
        bounds,
        seat: None,
        works: false,
        last_call: None,
        restarts: 0,
    }
}

/// A group, and what its members were told last.
struct Training {
    group: Group,
    told: BTreeMap<u64, Order>,
}

impl Training {
    fn new() -> Self {
        Self { group: Group::new(Duration::ZERO), told: BTreeMap::new() }
    }

    fn arrive(&mut self, now: Duration, member: u64) {
        self.group.arrive(now, Connection(member), newcomer(&format!("m{member}"), BOUNDS));
        self.advance(now);
    }

    fn ready(&mut self, now: Duration, member: u64, epoch: u64) {
        self.group.ready(now, Connection(member), epoch, String::new());
        self.advance(now);
    }

    fn advance(&mut self, now: Duration) {
        let orders = self.group.advance(now);
        self.told.extend(orders.into_iter().map(|(Connection(member), order)| (member, order)));
    }

    fn place(&self, member: u64) -> (u64, usize, usize) {
        match &self.told[&member] {
            Order::Place { epoch, rank, world_size, .. } => (*epoch, *rank, *world_size),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_epoch_begins_at_once_when_all_have_come() {
    let mut training = Training::new();
    training.arrive(at(0), 1);
    training.arrive(at(5), 2);
    assert_eq!(training.told, BTreeMap::new());
    training.arrive(at(9), 3);
    assert_eq!([1, 2, 3].map(|member| training.place(member)), [(1, 0, 3), (1, 1, 3), (1, 2, 3)]);
    let Order::Place { leader, .. } = &training.told[&3] else { panic!() };
    assert_eq!(leader, "m1:1");
}

#[test]
fn the_first_epoch_begins_with_enough_after_a_while() {
    let mut training = Training::new();
    training.arrive(at(0), 1);
    assert_eq!(training.group.wakes_at(), None, "one is not enough");
    training.arrive(at(5), 2);
    let begins = training.group.wakes_at().unwrap();
    assert_eq!(begins, at(5) + FIRST_PATIENCE);
    training.advance(begins);
    assert_eq!([1, 2].map(|member| training.place(member)), [(1, 0, 2), (1, 1, 2)]);
}

#[test]
fn newcomers_join_together_once_the_others_have_ended_their_epoch() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    training.arrive(at(100), 4);
    training.arrive(at(250), 5);
    training.advance(at(449));
    assert_eq!(training.place(1), (1, 0, 3), "nobody is asked before the newcomers have settled");
    training.advance(at(450));
    assert!((1..=3).all(|member| training.told[&member] == Order::Change { epoch: 1 }));
    for member in [3, 1] {
        training.ready(at(500), member, 1);
        assert!(!training.told.contains_key(&4));
    }
    training.ready(at(510), 2, 1);
    let places = [1, 2, 3, 4].map(|member| training.place(member));
    assert_eq!(places, [(2, 0, 4), (2, 1, 4), (2, 2, 4), (2, 3, 4)]);
    training.advance(at(511));
    assert_eq!(training.told[&5], Order::Reserve, "four are the most");
    training.advance(at(60_000));
    assert_eq!(training.place(1), (2, 0, 4), "a reserve disturbs nobody");
}

#[test]
fn the_reserve_takes_the_place_of_a_lost_member() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    (4..=5).for_each(|member| training.arrive(at(1), member));
    training.advance(at(300));
    (1..=3).for_each(|member| training.ready(at(301), member, 1));
    training.group.leave(Connection(2), false);
    for member in [1, 3, 4] {
        training.ready(at(400), member, 2);
    }
    assert_eq!(
        [1, 3, 4, 5].map(|member| training.place(member)),
        [(3, 0, 4), (3, 1, 4), (3, 2, 4), (3, 3, 4)]
    );
}

#[test]
fn who_waits_tells_the_others_that_their_epoch_has_ended() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    training.ready(at(10), 2, 1);
    assert_eq!(
        [1, 3].map(|member| training.told[&member].clone()),
        [1, 1].map(|epoch| Order::Change { epoch })
    );
    training.ready(at(11), 2, 1);
    training.ready(at(12), 1, 1);
    training.ready(at(13), 3, 1);
    assert_eq!(training.place(1), (2, 0, 3));
    training.ready(at(14), 1, 1);
    assert_eq!(training.group.wakes_at(), None, "that was about an epoch of the past");
}

fn departure(epoch: u64, member: u64, has_left: bool) -> Departure {
    let (rank, host) = (member as usize - 1, format!("host-of-m{member}"));
    Departure { epoch, rank, host, has_left }
}

#[test]
fn whoever_may_still_form_the_group_is_told_that_one_has_gone() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    training.group.leave(Connection(2), false);
    training.group.leave(Connection(2), false);
    training.advance(at(1));
    assert_eq!(
        [1, 3].map(|member| training.told[&member].clone()),
        [1, 3].map(|_| Order::Departure(departure(1, 2, true)))
    );
    let said = departure(1, 2, true).to_string();
    assert_eq!(said, "rank 1 of epoch 1 on host-of-m2 has left the training");
    assert_eq!(training.group.advance(at(2)), [], "once is enough");
    training.ready(at(3), 1, 1);
    training.ready(at(4), 3, 1);
    assert_eq!([1, 3].map(|member| training.place(member)), [(2, 0, 2), (2, 1, 2)]);
    // One that waits for the next epoch is missed in this one as well.
    training.group.ready(at(5), Connection(3), 2, String::new());
    let told = training.group.advance(at(5));
    let given_up = Departure { epoch: 2, rank: 1, host: "host-of-m3".into(), has_left: false };
    assert_eq!(given_up.to_string(), "rank 1 of epoch 2 on host-of-m3 has given the group up");
    assert_eq!(
        told,
        [(Connection(1), Order::Departure(given_up)), (Connection(1), Order::Change { epoch: 2 })]
    );
}

#[test]
fn members_that_wait_or_come_back_are_no_departures() {
    let mut training = Training::new();
    (1..=5).for_each(|member| training.arrive(at(0), member));
    training.group.leave(Connection(5), false);
    assert_eq!(training.group.advance(at(1)), [], "it had no place");
    let back = Arrival { seat: Some(Seat { epoch: 1, rank: 1 }), works: true, ..newcomer("m2", BOUNDS) };
    training.group.arrive(at(2), Connection(12), back);
    training.group.leave(Connection(2), false);
    assert_eq!(training.group.advance(at(3)), [], "it has another connection");
}

#[test]
fn a_service_that_was_started_again_learns_the_epoch_from_its_members() {
    let mut group = Group::new(at(2_000));
    for member in 1..=2 {
        group.arrive(at(10), Connection(member), newcomer(&format!("new{member}"), BOUNDS));
    }
    assert_eq!(group.advance(at(1_999)), [], "the members at work have not come back yet");
    let at_work = |member: &str, rank| Arrival {
        seat: Some(Seat { epoch: 7, rank }),
        works: true,
        ..newcomer(member, BOUNDS)
    };
    group.arrive(at(1_999), Connection(4), at_work("old", 0));
    let told = group.advance(at(2_000));
    assert_eq!(told, [(Connection(4), Order::Change { epoch: 7 })]);
    group.ready(at(2_001), Connection(4), 7, String::new());
    let places = group.advance(at(2_001));
    let of_old = places.iter().find(|(connection, _)| *connection == Connection(4)).unwrap();
    let Order::Place { epoch: 8, rank: 0, world_size: 3, leader, .. } = &of_old.1 else {
        panic!("{of_old:?}")
    };
    assert_eq!(leader, "old:1");
}

#[test]
fn members_that_work_in_different_epochs_are_brought_together() {
    let mut group = Group::new(Duration::ZERO);
    let at_work = |member: &str, epoch| Arrival {
        seat: Some(Seat { epoch, rank: 0 }),
        works: true,
        ..newcomer(member, BOUNDS)
    };
    group.arrive(at(0), Connection(1), at_work("new", 1));
    group.arrive(at(1), Connection(2), at_work("old", 5));
    let told = group.advance(at(1));
    assert_eq!(
        told,
        [(Connection(1), Order::Change { epoch: 1 }), (Connection(2), Order::Change { epoch: 5 })]
    );
    group.ready(at(2), Connection(1), 1, String::new());
    assert_eq!(group.advance(at(2)), []);
    group.ready(at(3), Connection(2), 5, String::new());
    let places = group.advance(at(3));
    assert!(
        matches!(&places[0].1, Order::Place { epoch: 6, rank: 0, leader, .. } if leader == "old:1"),
        "{places:?}"
    );
}

#[test]
fn members_at_the_same_place_are_brought_together() {
    let mut group = Group::new(Duration::ZERO);
    for (connection, member) in [(1, "one"), (2, "other")] {
        let seat = Some(Seat { epoch: 1, rank: 0 });
        group.arrive(
            at(0),
            Connection(connection),
            Arrival { seat, works: true, ..newcomer(member, BOUNDS) },
        );
    }
    assert_eq!(group.advance(at(0)).len(), 2);
    (1..=2).for_each(|connection| group.ready(at(1), Connection(connection), 1, String::new()));
    let told = group.advance(at(1)).into_iter().map(|(_, order)| order);
    let ranks: Vec<_> =
        told.map(|order| if let Order::Place { epoch: 2, rank, .. } = order { rank } else { 9 }).collect();
    assert_eq!(ranks, [0, 1]);
}

/// A training whose members 1 to 3 work in its first epoch.
fn at_work() -> Training {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    training.told.clear();
    training
}

impl Training {
    fn fail(&mut self, now: Duration, member: u64, epoch: u64, most_restarts: u32) {
        self.group.fail(now, Connection(member), epoch, format!("m{member} failed"), most_restarts);
        self.advance(now);
    }

    fn end_well(&mut self, now: Duration, member: u64) {
        self.group.end_well(now, Connection(member), self.group.epoch);
        self.advance(now);
    }

    fn restarts(&self, member: u64) -> u32 {
        match &self.told[&member] {
            Order::Place { restarts, .. } => *restarts,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_failure_ends_the_epoch_of_all_and_counts_as_a_restart() {
    let mut training = at_work();
    training.fail(at(100), 2, 1, 1);
    assert!(training.told.values().all(|order| *order == Order::Change { epoch: 1 }));
    training.fail(at(101), 3, 1, 0);
    (1..=3).for_each(|member| training.ready(at(102), member, 1));
    let clear_at = training.group.wakes_at().unwrap();
    assert_eq!(clear_at, at(100) + SETTLES, "a loss may yet explain it");
    training.advance(clear_at);
    assert_eq!(training.place(1), (2, 0, 3));
    assert_eq!([1, 2, 3].map(|member| training.restarts(member)), [1; 3]);
}

#[test]
fn one_failure_too_many_ends_the_training_for_all_but_those_who_come_later() {
    let mut training = at_work();
    training.fail(at(100), 2, 1, 0);
    training.fail(at(101), 1, 1, 5);
    assert_eq!(training.group.wakes_at(), Some(at(100) + SETTLES));
    training.advance(at(100) + SETTLES);
    let over = Order::Over { failure: Some("m2 failed".into()) };
    assert!(training.told.values().all(|order| *order == over), "{:?}", training.told);
    assert!(training.group.is_empty());
    (4..=6).for_each(|member| training.arrive(at(500), member));
    assert_eq!((training.place(4), training.restarts(4)), ((2, 0, 3), 0));
}

#[test]
fn failures_that_a_loss_has_caused_are_free_in_whatever_order_they_come() {
    for loss_comes_first in [true, false] {
        let mut training = at_work();
        if loss_comes_first {
            training.group.leave(Connection(3), false);
        }
        training.fail(at(100), 1, 1, 0);
        if !loss_comes_first {
            training.group.leave(Connection(3), false);
        }
        training.ready(at(101), 1, 1);
        training.ready(at(102), 2, 1);
        assert_eq!((training.place(2), training.restarts(2)), ((2, 1, 2), 0), "{loss_comes_first}");
    }
}

#[test]
fn failures_of_earlier_epochs_and_of_those_who_wait_mean_nothing() {
    let mut training = at_work();
    (1..=2).for_each(|member| training.ready(at(50), member, 1));
    training.fail(at(51), 1, 1, 0);
    training.ready(at(52), 3, 1);
    assert_eq!((training.place(1), training.restarts(1)), ((2, 0, 3), 0));
    training.fail(at(53), 1, 1, 0);
    assert_eq!(training.group.wakes_at(), None);
}

#[test]
fn the_training_is_over_when_the_parts_of_all_have_ended_well() {
    let mut training = at_work();
    (1..=2).for_each(|member| training.end_well(at(100), member));
    training.arrive(at(101), 4);
    training.advance(at(101) + SETTLES);
    assert_eq!(training.told, BTreeMap::new(), "the end is near: a newcomer disturbs nobody");
    // One whose part has ended is not missed.
    training.group.leave(Connection(2), false);
    training.end_well(at(900), 3);
    let over = Order::Over { failure: None };
    assert_eq!(training.told, BTreeMap::from([1, 3, 4].map(|member| (member, over.clone()))));
}

#[test]
fn those_whose_part_has_ended_well_begin_again_with_those_whose_part_has_not() {
    let mut training = at_work();
    training.end_well(at(100), 1);
    training.fail(at(110), 2, 1, 3);
    assert_eq!(training.told[&1], Order::Change { epoch: 1 });
    (1..=3).for_each(|member| training.ready(at(400), member, 1));
    assert_eq!((training.place(1), training.restarts(1)), ((2, 0, 3), 1));
    // A loss is told to them as well, and is no end.
    training.told.clear();
    (1..=2).for_each(|member| training.end_well(at(500), member));
    training.group.leave(Connection(3), false);
    training.advance(at(501));
    assert!(matches!(&training.told[&1], Order::Departure(departure) if departure.has_left));
    assert_eq!(training.group.wakes_at(), None);
    (1..=2).for_each(|member| training.ready(at(502), member, 2));
    assert_eq!((training.place(2), training.restarts(2)), ((3, 1, 2), 1));
}

#[test]
fn a_last_call_waits_for_those_that_are_expected_but_not_for_those_that_said_goodbye() {
    let patience = Duration::from_secs(30);
    for (said_so, waits) in [(false, patience), (true, Duration::ZERO)] {
        let mut training = Training::new();
        for member in 1..=3 {
            let arrival = Arrival { last_call: Some(patience), ..newcomer(&format!("m{member}"), BOUNDS) };
            training.group.arrive(at(0), Connection(member), arrival);
        }
        training.advance(at(0));
        training.group.leave(Connection(3), said_so);
        (1..=2).for_each(|member| training.ready(at(10), member, 1));
        let begins = training.group.wakes_at();
        assert_eq!(begins.unwrap_or(at(10)), at(10) + waits);
        training.advance(at(10) + waits);
        assert_eq!(training.place(1), (2, 0, 2));
    }
}

#[test]
fn a_service_that_is_started_again_knows_the_restarts_and_waits_for_all_before_the_end() {
    let mut group = Group::new(at(2_000));
    let back = |member: &str, rank| Arrival {
        seat: Some(Seat { epoch: 4, rank }),
        works: true,
        restarts: 2,
        ..newcomer(member, BOUNDS)
    };
    group.arrive(at(0), Connection(1), back("a", 0));
    group.end_well(at(1), Connection(1), 4);
    assert_eq!(group.advance(at(1)), [], "the other may work still");
    assert_eq!(group.wakes_at(), Some(at(2_000)));
    group.arrive(at(3), Connection(2), back("b", 1));
    group.fail(at(4), Connection(2), 4, "b failed".into(), 2);
    assert_eq!(group.wakes_at(), Some(at(4) + SETTLES));
    assert!(matches!(&group.advance(at(4) + SETTLES)[0].1, Order::Over { failure: Some(_) }));
}

#[test]
fn the_leader_of_the_next_epoch_may_listen_elsewhere() {
    let mut training = at_work();
    for member in 1..=3 {
        training.group.ready(at(1), Connection(member), 1, format!("m{member}:2"));
    }
    training.advance(at(1));
    let Order::Place { leader, .. } = &training.told[&2] else { panic!() };
    assert_eq!(leader, "m1:2");
}

#[test]
fn after_a_restart_of_all_the_expected_are_awaited_again() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    (1..=3).for_each(|member| training.group.leave(Connection(member), false));
    (4..=5).for_each(|member| training.arrive(at(100), member));
    assert!(!training.told.contains_key(&4));
    training.arrive(at(200), 6);
    assert_eq!(training.place(4), (2, 0, 3));
}

#[test]
fn whoever_comes_after_the_end_is_told_so() {
    let mut training = Training::new();
    (1..=3).for_each(|member| training.arrive(at(0), member));
    training.group.finish();
    training.advance(at(1));
    assert_eq!(training.place(1), (1, 0, 3), "who works is left in peace");
    training.arrive(at(2), 4);
    assert_eq!(training.told[&4], Order::Over { failure: None });
}

/// What happens to a training.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(u64),
    Ready(u64),
    Leave(u64),
    /// The service is started again, and members come back one after the other.
    Restart,
    Pass(u16),
    /// Whoever was asked to end an epoch does.
    Obey,
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..8_u64;
    prop_oneof![
        4 => member.clone().prop_map(Event::Arrive),
        6 => member.clone().prop_map(Event::Ready),
        2 => member.prop_map(Event::Leave),
        1 => Just(Event::Restart),
        4 => (0..3_000_u16).prop_map(Event::Pass),
        2 => Just(Event::Obey),
    ]
}

/// What a member knows itself.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    connection: u64,
    seat: Option<Seat>,
    works: bool,
    is_asked: bool,
}

impl View {
    fn end_epoch(&mut self, group: &mut Group, now: Duration) {
        if let Some(seat) = self.seat {
            self.works = false;
            self.is_asked = false;
            group.ready(now, Connection(self.connection), seat.epoch, String::new());
        }
    }
}

proptest! {
    #[test]
    fn an_epoch_is_given_once_to_as_many_as_it_says(
        events in prop::collection::vec(event(), 1..80),
        fewest in 1..4_usize, more in 0..3_usize, reserve in 0..3_usize,
    ) {
        let bounds = Bounds { fewest, expected: fewest + more, most: fewest + more + reserve };
        let (mut group, mut now, mut connections) = (Group::new(Duration::ZERO), Duration::ZERO, 0);
        let mut views: BTreeMap<u64, View> = BTreeMap::new();
        let mut newest = 0;
        let introduce = |member: u64, view: &View| Arrival {
            seat: view.seat, works: view.works, ..newcomer(&format!("m{member}"), bounds)
        };
        // In the end all have come, and everybody does as told.
        let last = (0..8).map(Event::Arrive).chain([Event::Pass(60_000), Event::Obey].repeat(4));
        for event in events.into_iter().chain(last) {
            match event {
                Event::Arrive(member) if !views.contains_key(&member) => {
                    connections += 1;
                    let view = View { connection: connections, ..View::default() };
                    group.arrive(now, Connection(connections), introduce(member, &view));
                    views.insert(member, view);
                }
                Event::Ready(member) => {
                    if let Some(view) = views.get_mut(&member) {
                        view.end_epoch(&mut group, now);
                    }
                }
                Event::Obey => {
                    views.values_mut().filter(|view| view.is_asked).for_each(|view| view.end_epoch(&mut group, now));
                }
                Event::Leave(member) => {
                    if let Some(view) = views.remove(&member) {
                        group.leave(Connection(view.connection), false);
                    }
                }
                Event::Restart => {
                    group = Group::new(now + Duration::from_secs(2));
                    // What nobody remembers cannot be met either.
                    let seats = views.values().filter_map(|view| view.seat);
                    newest = seats.map(|seat| seat.epoch).max().unwrap_or(0);
                    for (member, view) in &mut views {
                        now += Duration::from_millis(20);
                        connections += 1;
                        view.connection = connections;
                        group.arrive(now, Connection(connections), introduce(*member, view));
                    }
                }
                Event::Pass(milliseconds) => now += Duration::from_millis(milliseconds.into()),
                Event::Arrive(_) => {}
            }
            let worked: Vec<u64> = views.iter().filter(|(_, view)| view.works).map(|(member, _)| *member).collect();
            let orders = group.advance(now);
            let mut ranks = Vec::new();
            for (connection, order) in orders {
                let found = views.iter_mut().find(|(_, view)| view.connection == connection.0);
                let (member, view) = found.expect("who is told something is connected");
                match order {
                    Order::Place { epoch, rank, world_size, .. } => {
                        prop_assert!(epoch > newest, "epoch {epoch} after {newest}");
                        prop_assert!(worked.is_empty(), "{worked:?} work while {member} is placed");
                        prop_assert!((fewest..=bounds.most).contains(&world_size));
                        ranks.push((epoch, world_size, rank));
                        view.seat = Some(Seat { epoch, rank });
                        view.works = true;
                        view.is_asked = false;
                    }
                    Order::Change { epoch } => {
                        prop_assert_eq!(view.seat.unwrap().epoch, epoch);
                        view.is_asked = true;
                    }
                    Order::Over { .. } => prop_assert!(false, "nobody has finished"),
                    Order::Reserve => prop_assert!(!view.works),
                    Order::Departure(departure) => {
                        prop_assert!(view.works);
                        prop_assert_eq!(view.seat.unwrap().epoch, departure.epoch);
                    }
                }
            }
            if let Some((epoch, world_size, _)) = ranks.first().copied() {
                newest = epoch;
                let expected: Vec<_> = (0..world_size).map(|rank| (epoch, world_size, rank)).collect();
                prop_assert_eq!(ranks, expected);
            }
        }
        let at_work = views.values().filter(|view| view.works).count();
        prop_assert_eq!(at_work, bounds.most.min(views.len()), "all that may take part do, in the end");
    }
}
