//! A measured value and the bar it is held against.

use serde::{Serialize, Serializer};

/// What is promised of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Bar {
    /// The part of the project.
    pub(crate) area: &'static str,
    /// Name of the figure, one word.
    pub(crate) name: &'static str,
    /// What the numbers count: `s`, `MB`, `/s`; empty for a share.
    pub(crate) unit: &'static str,
    /// How good it must be.
    pub(crate) limit: Limit,
}

/// How good a figure must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// It is only reported.
    None,
}

/// A bar and what was measured, or why nothing could be.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The promise.
    pub(crate) bar: Bar,
    /// The value, or the cause of the failure.
    pub(crate) value: Result<f64, String>,
}

impl Figure {
    /// Whether the promise is kept. What cannot be measured is not.
    pub(crate) fn holds(&self) -> bool {
        match (&self.value, self.bar.limit) {
            (Err(_), _) => false,
            (Ok(value), Limit::AtMost(most)) => *value <= most,
            (Ok(value), Limit::AtLeast(least)) => *value >= least,
            (Ok(value), Limit::None) => value.is_finite(),
        }
    }

    /// `holds`, `short`, or `report` for a figure without a limit.
    fn verdict(&self) -> &'static str {
        match (self.holds(), self.bar.limit) {
            (false, _) => "short",
            (true, Limit::None) => "report",
            (true, _) => "holds",
        }
    }

    /// `area name figure bar verdict`, five words.
    pub(crate) fn line(&self) -> String {
        let unit = self.bar.unit;
        let value = self
            .value
            .as_ref()
            .map_or_else(|_| "failed".to_owned(), |value| format!("{}{unit}", rounded(*value)));
        let bar = match self.bar.limit {
            Limit::AtMost(most) => format!("<={}{unit}", rounded(most)),
            Limit::AtLeast(least) => format!(">={}{unit}", rounded(least)),
            Limit::None => "-".to_owned(),
        };
        format!("{} {:<24} {value:>10} {bar:>10} {}", self.bar.area, self.bar.name, self.verdict())
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = serde_json::json!({
            "area": self.bar.area,
            "name": self.bar.name,
            "unit": self.bar.unit,
            "figure": self.value.as_ref().ok(),
            "failure": self.value.as_ref().err(),
            "bar": self.bar.limit,
            "verdict": self.verdict(),
        });
        fields.serialize(serializer)
    }
}

/// Three significant digits, or all that stand before the point.
fn rounded(value: f64) -> String {
    let digits = if value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        3
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(limit: Limit, value: Result<f64, String>) -> Figure {
        Figure { bar: Bar { area: "main", name: "ready", unit: "s", limit }, value }
    }

    #[test]
    fn a_bar_holds_up_to_its_limit() {
        assert!(figure(Limit::AtMost(0.5), Ok(0.5)).holds());
        assert!(!figure(Limit::AtMost(0.5), Ok(0.51)).holds());
        assert!(figure(Limit::AtLeast(100.0), Ok(100.0)).holds());
        assert!(!figure(Limit::AtLeast(100.0), Ok(99.0)).holds());
        assert!(!figure(Limit::None, Err("no cluster".into())).holds());
        assert!(!figure(Limit::AtMost(0.5), Ok(f64::NAN)).holds());
    }

    #[test]
    fn a_line_has_five_words() {
        let line =
            |limit, value| figure(limit, value).line().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line(Limit::AtMost(0.5), Ok(0.123_4)), "main ready 0.123s <=0.5s holds");
        assert_eq!(line(Limit::AtLeast(3000.0), Err("x".into())), "main ready failed >=3000s short");
        assert_eq!(line(Limit::None, Ok(312.4)), "main ready 312s - report");
    }
}
