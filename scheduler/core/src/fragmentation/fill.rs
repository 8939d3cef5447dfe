//! What a node will yet carry: the devices handed out when pods of the mix fill it to the end.

use crate::devices::{GpuDemand, WHOLE};
use crate::fragmentation::mix::{Free, Host, Mix, Want};

/// Prices tried for processor and for memory.
pub(super) const PRICES: usize = 24;
/// A number for each price.
pub(super) type Lanes = [f32; PRICES];
/// Thousandths in one step of the tables of shares.
const STEP: u16 = 10;
const STEPS: usize = (WHOLE / STEP) as usize;
/// The chance, as a share of all pods, that what is left stays empty although something could still come:
/// holes that only few pods fit are worth little.
const LEFT_EMPTY: f32 = 0.03;

/// What a placement costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Thousandths of devices that would have been handed out without this pod and now will not be.
    pub lost: f32,
    /// For a share: the device, by what it has left now.
    pub left_on_device: Option<u16>,
}

/// The value of free room under one mix.
///
/// With pods coming at random, the expected fill of one device is a recursion over what is left on it. Devices
/// of a node share its processor and memory; that tie is relaxed by a price: a pod's contribution is its
/// thousandths less the price of what it takes, the free amount itself is worth the price, and the price that
/// makes the sum least is the node's. Each price is one lane of the tables, so a value is a few additions of
/// lanes and a minimum.
#[derive(Debug, Clone)]
pub struct FillValue {
    classes: Vec<[Tables; 2]>,
    prices: [Lanes; 2],
}

/// Of one class and one of processor and memory.
#[derive(Debug, Clone)]
struct Tables {
    /// By steps left on a device in use.
    part: Vec<Lanes>,
    /// By number of wholly free devices.
    whole: Vec<Lanes>,
}

/// The sums of a node, from which its value and those of its successors follow.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums {
    lanes: [Lanes; 2],
    whole: usize,
    pub(super) value: f32,
}

impl FillValue {
    /// For nodes of `classes` classes with at most `devices` devices each.
    pub fn of(mix: &Mix, classes: usize, devices: usize) -> Self {
        let prices = [0, 1].map(|part| prices(mix, part));
        let tables = |class: usize| [0, 1].map(|part| Tables::of(mix, class, part, &prices[part], devices));
        Self { classes: (0..classes.max(1)).map(tables).collect(), prices }
    }

    /// Thousandths of its devices that the node will hand out, in expectation.
    pub fn value(&self, free: &Free<'_>) -> f32 {
        self.sums(free).value
    }

    /// What one more pod costs, on the best device; nothing when it does not fit.
    pub fn cost(&self, free: &Free<'_>, want: &Want) -> Option<Cost> {
        self.cost_after(&self.sums(free), free, want)
    }

    pub(super) fn sums(&self, free: &Free<'_>) -> Sums {
        let tables = self.tables(free.class);
        let whole = free.devices.iter().filter(|left| **left == WHOLE).count();
        let mut sums = Sums { lanes: [[0.0; PRICES]; 2], whole, value: 0.0 };
        for (lanes, tables) in sums.lanes.iter_mut().zip(tables) {
            for left in free.devices.iter().filter(|left| **left < WHOLE) {
                add(lanes, &tables.part[step(*left)], 1.0);
            }
        }
        sums.value = self.least(&sums.lanes, tables, whole, free.host);
        sums
    }

    pub(super) fn cost_after(&self, sums: &Sums, free: &Free<'_>, want: &Want) -> Option<Cost> {
        if !free.holds(want) {
            return None;
        }
        let tables = self.tables(free.class);
        let host = [free.host[0] - want.host[0].max(0), free.host[1] - want.host[1].max(0)];
        let (whole, share) = match want.gpu {
            GpuDemand::None => (sums.whole, None),
            GpuDemand::Whole(count) => (sums.whole - count as usize, None),
            GpuDemand::Share(share) => (sums.whole, Some(share)),
        };
        let Some(share) = share else {
            let after = self.least(&sums.lanes, tables, whole, host);
            let used = want.gpu.thousandths() as f32;
            return Some(Cost { lost: sums.value - after - used, left_on_device: None });
        };
        let mut best: Option<Cost> = None;
        let mut previous = None;
        for left in free.devices.iter().copied().filter(|left| *left >= share) {
            if previous == Some(left) {
                continue;
            }
            previous = Some(left);
            let mut lanes = sums.lanes;
            let mut whole = whole;
            for (lanes, tables) in lanes.iter_mut().zip(tables) {
                add(lanes, &tables.part[step(left - share)], 1.0);
                if left < WHOLE {
                    add(lanes, &tables.part[step(left)], -1.0);
                }
            }
            if left == WHOLE {
                whole -= 1;
            }
            let lost = sums.value - self.least(&lanes, tables, whole, host) - f32::from(share);
            // Among equals the fullest device.
            if best.is_none_or(|best| {
                lost < best.lost || (lost <= best.lost && Some(left) < best.left_on_device)
            }) {
                best = Some(Cost { lost, left_on_device: Some(left) });
            }
        }
        best
    }

    fn tables(&self, class: usize) -> &[Tables; 2] {
        &self.classes[class.min(self.classes.len() - 1)]
    }

    /// The least over prices and over processor and memory: both bound what fits.
    fn least(&self, lanes: &[Lanes; 2], tables: &[Tables; 2], whole: usize, host: Host) -> f32 {
        let mut least = f32::INFINITY;
        for part in 0..2 {
            let whole = &tables[part].whole[whole.min(tables[part].whole.len() - 1)];
            let amount = host[part].max(0) as f32;
            let mut values = [0.0; PRICES];
            for (lane, value) in values.iter_mut().enumerate() {
                *value = lanes[part][lane] + whole[lane] + self.prices[part][lane] * amount;
            }
            least = values.iter().fold(least, |least, value| if *value < least { *value } else { least });
        }
        least
    }
}

fn add(lanes: &mut Lanes, more: &Lanes, times: f32) {
    for (lane, more) in lanes.iter_mut().zip(more) {
        *lane += times * more;
    }
}

fn step(left: u16) -> usize {
    usize::from(left.min(WHOLE) / STEP)
}

/// Nothing, then evenly spaced on a logarithmic scale around the prices at which kinds of pods break even.
fn prices(mix: &Mix, part: usize) -> Lanes {
    let break_even = mix.shares().filter_map(|(want, _)| {
        let gpu = want.gpu.thousandths();
        (gpu > 0 && want.host[part] > 0).then(|| f64::from(gpu) / want.host[part] as f64)
    });
    let (low, high) =
        break_even.fold((f64::INFINITY, 0.0_f64), |(low, high), price| (low.min(price), high.max(price)));
    let mut prices = [0.0; PRICES];
    if high > 0.0 {
        let (low, high) = (low / 4.0, high * 1.5);
        for (index, price) in prices.iter_mut().enumerate().skip(1) {
            *price = (low * (high / low).powf((index - 1) as f64 / (PRICES - 2) as f64)) as f32;
        }
    }
    prices
}

/// A kind of pod as the tables see it.
struct Kind {
    share: f32,
    /// Thousandths less what it pays, by price.
    gain: Lanes,
    /// Steps that it takes of one device, or whole devices.
    takes: usize,
}

impl Tables {
    fn of(mix: &Mix, class: usize, part: usize, prices: &Lanes, devices: usize) -> Self {
        let mut on_one = Vec::new();
        let mut on_several = Vec::new();
        for (want, share) in mix.shares().filter(|(want, _)| want.classes.contains(class)) {
            let mut gain = [want.gpu.thousandths() as f32; PRICES];
            for (gain, price) in gain.iter_mut().zip(prices) {
                *gain -= price * want.host[part].max(0) as f32;
            }
            let kind = |takes| Kind { share: share as f32, gain, takes };
            match want.gpu {
                GpuDemand::Share(thousandths) => on_one.push(kind(usize::from(thousandths.div_ceil(STEP)))),
                GpuDemand::Whole(1) => on_one.push(kind(STEPS)),
                GpuDemand::Whole(count) if count > 1 => on_several.push(kind(count as usize)),
                GpuDemand::None | GpuDemand::Whole(_) => {}
            }
        }
        let part = fill(STEPS, &on_one, LEFT_EMPTY);
        // A device is opened for one pod alone or joins others for a pod of several, in proportion to devices.
        let singles = Kind { share: on_one.iter().map(|kind| kind.share).sum(), gain: part[STEPS], takes: 1 };
        for kind in &mut on_several {
            kind.share *= kind.takes as f32;
        }
        on_several.push(singles);
        let whole = fill(devices, &on_several, 0.0);
        Self { part, whole }
    }
}

/// The expected gain of `0..=room` units of room filled at random by kinds that gain something;
/// `left_empty` is the chance, as a share of all pods, that none comes.
fn fill(room: usize, kinds: &[Kind], left_empty: f32) -> Vec<Lanes> {
    let mut values: Vec<Lanes> = vec![[0.0; PRICES]];
    for left in 1..=room {
        let (mut weights, mut sums) = ([0.0_f32; PRICES], [0.0_f32; PRICES]);
        for kind in kinds.iter().filter(|kind| kind.takes <= left) {
            let rest = &values[left - kind.takes];
            for lane in 0..PRICES {
                let gain = kind.gain[lane] + rest[lane];
                let weight = if gain > 0.0 { kind.share } else { 0.0 };
                weights[lane] += weight;
                sums[lane] += weight * gain;
            }
        }
        let mut value = [0.0; PRICES];
        for lane in 0..PRICES {
            if weights[lane] > 0.0 {
                value[lane] = sums[lane] / (weights[lane] + left_empty);
            }
        }
        values.push(value);
    }
    values
}
