//! Reports as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Report, Sample};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("the plot could not be drawn: {0}")]
pub struct PlotError(String);

impl PlotError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A title and what is drawn under it.
type Figure<T> = (&'static str, fn(&T) -> f64);

const SIZE: (u32, u32) = (1000, 1100);
/// Colours that people with any eyes tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Utilisation, fragmentation and waits over time, a line for each policy.
///
/// # Errors
/// [`PlotError`].
pub fn curves_svg(reports: &[Report]) -> Result<String, PlotError> {
    let curves: [Figure<Sample>; 4] = [
        ("In use (%)", |sample| sample.utilisation * 100.0),
        ("Free but of no use to the next pod (%)", |sample| sample.fragmentation * 100.0),
        ("Jobs that wait", |sample| sample.waiting as f64),
        ("Mean age of those that wait (minutes)", |sample| sample.mean_wait / 60.0),
    ];
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(PlotError::of)?;
        for (area, (title, value)) in root.split_evenly((4, 1)).iter().zip(curves) {
            lines(area, reports, title, value)?;
        }
        root.present().map_err(PlotError::of)?;
    }
    Ok(svg)
}

fn lines(
    area: &Canvas<'_>,
    reports: &[Report],
    title: &str,
    value: fn(&Sample) -> f64,
) -> Result<(), PlotError> {
    let hours = |sample: &Sample| sample.at.0 as f64 / 3_600_000.0;
    let samples = || reports.iter().flat_map(|report| &report.samples);
    let from = samples().map(hours).fold(f64::INFINITY, f64::min).min(0.0);
    let to = samples().map(hours).fold(from + 1e-6, f64::max);
    let top = samples().map(value).fold(1e-6, f64::max) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(from..to, 0.0..top)
        .map_err(PlotError::of)?;
    chart.configure_mesh().x_desc("hours").light_line_style(WHITE).draw().map_err(PlotError::of)?;
    for (index, report) in reports.iter().enumerate() {
        let points = report.samples.iter().map(|sample| (hours(sample), value(sample)));
        let line = colour(index);
        chart
            .draw_series(LineSeries::new(points, line.stroke_width(2)))
            .map_err(PlotError::of)?
            .label(report.policy.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    labels
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.7))
        .draw()
        .map_err(PlotError::of)
}

/// Policies side by side: utilisation, makespan, waits and predicted all-reduce time.
///
/// # Errors
/// [`PlotError`].
pub fn bars_svg(reports: &[Report]) -> Result<String, PlotError> {
    let figures: [Figure<Report>; 6] = [
        ("In use (%)", |report| report.utilisation * 100.0),
        ("Makespan (hours)", |report| report.makespan as f64 / 3_600_000.0),
        ("Mean wait (minutes)", |report| report.waits.mean / 60_000.0),
        ("Longest wait (minutes)", |report| report.waits.max as f64 / 60_000.0),
        ("Predicted all-reduce, mean (ms)", |report| report.gangs.all_reduce_mean * 1000.0),
        ("Ring crossings of the top level, p95", |report| report.gangs.crossings_p95 as f64),
    ];
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(PlotError::of)?;
        for (area, (title, value)) in root.split_evenly((3, 2)).iter().zip(figures) {
            bars(area, reports, title, value)?;
        }
        root.present().map_err(PlotError::of)?;
    }
    Ok(svg)
}

fn bars(
    area: &Canvas<'_>,
    reports: &[Report],
    title: &str,
    value: fn(&Report) -> f64,
) -> Result<(), PlotError> {
    let top = reports.iter().map(value).fold(1e-6, f64::max) * 1.1;
    let count = reports.len() as i32;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d((0..count.max(1)).into_segmented(), 0.0..top)
        .map_err(PlotError::of)?;
    let name = |segment: &SegmentValue<i32>| match segment {
        SegmentValue::CenterOf(index) => {
            reports.get(*index as usize).map_or_else(String::new, |report| report.policy.clone())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(reports.len().max(1))
        .x_label_formatter(&name)
        .x_label_style(("sans-serif", 11))
        .draw()
        .map_err(PlotError::of)?;
    let rectangles = reports.iter().enumerate().map(|(index, report)| {
        let left = SegmentValue::Exact(index as i32);
        let right = SegmentValue::Exact(index as i32 + 1);
        let mut bar = Rectangle::new([(left, 0.0), (right, value(report))], colour(index).filled());
        bar.set_margin(0, 0, 6, 6);
        bar
    });
    chart.draw_series(rectangles).map_err(PlotError::of)?;
    Ok(())
}
