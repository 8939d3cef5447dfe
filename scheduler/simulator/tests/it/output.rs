//! Tables, CSV and pictures.

use muster_scheduler_simulator::catalogue;
use muster_scheduler_simulator::engine::{Options, simulate};
use muster_scheduler_simulator::report::{
    Report, bars_svg, classes_csv, curves_csv, curves_svg, summary_csv, table,
};

use crate::{job, workload};

fn reports() -> Vec<Report> {
    let mut jobs = vec![job("long", 0, 4000, 1, 3), job("wide", 10, 600, 2, 4)];
    jobs.extend((0..6).map(|index| job("short", 60 * index, 90 + 30 * index, 1, 1)));
    jobs[1].all_reduce = 100 << 20;
    let workload = workload(&[4, 4], jobs);
    let options = Options { samples: 4, ..Options::default() };
    ["fifo", "easy", "volcano-tier"].map(|policy| simulate(&workload, policy, options).unwrap()).to_vec()
}

#[test]
fn the_table_is_for_people() {
    insta::assert_snapshot!(table(&reports()));
}

#[test]
fn csv_has_a_line_for_each_policy_class_and_sample() {
    let reports = reports();
    insta::assert_snapshot!(format!(
        "{}\n{}\n{}",
        summary_csv(&reports),
        classes_csv(&reports),
        curves_csv(&reports)
    ));
}

#[test]
fn pictures_name_policies_and_figures() {
    let reports = reports();
    for (svg, words) in [
        (curves_svg(&reports).unwrap(), ["In use (%)", "volcano-tier", "Jobs that wait"]),
        (bars_svg(&reports).unwrap(), ["Makespan (hours)", "easy", "Longest wait (minutes)"]),
    ] {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for word in words {
            assert!(svg.contains(word), "{word}");
        }
    }
}

#[test]
fn everything_is_written_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("new");
    let paths = catalogue::write(&reports(), &into).unwrap();
    let names: Vec<_> =
        paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["summary.csv", "classes.csv", "curves.csv", "reports.json", "curves.svg", "bars.svg"]);
    assert!(paths.iter().all(|path| path.metadata().unwrap().len() > 100));
    let json: serde_json::Value = serde_json::from_slice(&fs_err::read(&paths[3]).unwrap()).unwrap();
    assert_eq!(json[1]["policy"], "easy");
    assert_eq!(json[1]["classes"][0]["class"], "long");
}

#[test]
fn no_reports_make_empty_output() {
    assert!(curves_svg(&[]).is_ok() && bars_svg(&[]).is_ok());
    assert_eq!(summary_csv(&[]).lines().count(), 1);
    assert!(table(&[]).starts_with("POLICY"));
}

#[test]
fn workloads_are_found_by_name_or_file() {
    for name in catalogue::SYNTHETIC {
        let workload = catalogue::load(name, 3, Some(2.0)).unwrap();
        assert!(workload.jobs.len() >= 1_000, "{name}");
        assert_eq!(workload.jobs, catalogue::load(name, 3, Some(2.0)).unwrap().jobs, "{name}");
    }
    let error = catalogue::load("philly", 1, None).unwrap_err().to_string();
    assert!(
        error.starts_with("trace \"philly\" is none of gangs, mixed and no file that ends in"),
        "{error}"
    );
    assert!(catalogue::load("missing.trace", 1, None).unwrap_err().to_string().contains("missing.trace"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.trace");
    fs_err::write(&path, "A3C\tx\t-n\t1\t500\t11\t1\n").unwrap();
    let workload = catalogue::load(path.to_str().unwrap(), 1, None).unwrap();
    assert_eq!((workload.name.as_str(), workload.jobs.len(), workload.cluster.nodes.len()), ("small", 1, 2));
}
