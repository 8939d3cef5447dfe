//! The tree as an icicle: a row per level, a box per domain as wide as its nodes, darker where GPUs are in use.

use std::fmt::Write as _;

use super::Occupancy;
use super::text::bandwidth;
use crate::tree::{DomainId, Topology};

const WIDTH: f64 = 960.0;
const ROW: f64 = 28.0;

/// Boxes narrower than this stand in for their neighbours too.
const NARROWEST: f64 = 1.0;

/// Characters are about this wide.
const LETTER: f64 = 6.5;

/// A drawing of 960 pixels width that scales. Titles appear when pointed at.
pub fn svg(topology: &Topology, occupancy: &Occupancy) -> String {
    let nodes = topology.node_count().max(1) as f64;
    let height = ROW * topology.levels().len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n"
    );
    for level in topology.level_indices() {
        let mut drawn = -NARROWEST;
        for domain in topology.domains(level) {
            let positions = topology.positions(domain);
            let left = f64::from(positions.start) / nodes * WIDTH;
            let width = if domain == DomainId::ROOT { WIDTH } else { positions.len() as f64 / nodes * WIDTH };
            if left + width - drawn < NARROWEST {
                continue;
            }
            drawn = left + width;
            draw(&mut svg, topology, occupancy, domain, (left, width));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(
    svg: &mut String,
    topology: &Topology,
    occupancy: &Occupancy,
    domain: DomainId,
    (left, width): (f64, f64),
) {
    let level = topology.level_of(domain);
    let (free, all) = occupancy.of(topology, domain);
    let used = if all == 0 { 0.0 } else { 1.0 - free as f64 / all as f64 };
    // From a light to a strong blue.
    let mix = |light: f64, strong: f64| (light + (strong - light) * used).round() as u8;
    let fill = format!("#{:02x}{:02x}{:02x}", mix(226.0, 37.0), mix(236.0, 99.0), mix(247.0, 180.0));
    let ink = if used > 0.55 { "#fff" } else { "#123" };
    let top = ROW * f64::from(level.0);
    let uplink = topology.uplink(domain).bandwidth;
    let uplink = if uplink.is_finite() { format!(", uplink {}", bandwidth(uplink)) } else { String::new() };
    let name = escape(topology.name(domain));
    let _ = write!(
        svg,
        "<g><title>{} {}: {free} of {all} GPUs free{uplink}</title><rect x=\"{left:.2}\" y=\"{top}\" \
         width=\"{width:.2}\" height=\"{ROW}\" fill=\"{fill}\" stroke=\"#fff\" stroke-width=\"0.5\"/>",
        escape(&topology.levels()[level.index()].name),
        escape(&topology.path(domain)),
    );
    if topology.name(domain).chars().count() as f64 * LETTER < width {
        let _ = write!(
            svg,
            "<text x=\"{:.2}\" y=\"{}\" text-anchor=\"middle\" fill=\"{ink}\">{name}</text>",
            left + width / 2.0,
            top + ROW * 0.64,
        );
    }
    svg.push_str("</g>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
