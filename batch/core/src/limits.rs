//! Times, amounts of memory and signals as Slurm's options write them.

/// Why a value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// A time.
    #[error(
        "`{0}` is not a time; write MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS, \
         DAYS-HOURS:MINUTES or DAYS-HOURS:MINUTES:SECONDS"
    )]
    Time(String),
    /// An amount of memory.
    #[error("`{0}` is not an amount of memory; write a number of MiB, or one with K, M, G or T")]
    Memory(String),
    /// A signal.
    #[error("`{0}` is not a signal and when it comes; write NAME@SECONDS, such as USR1@60")]
    Signal(String),
}

/// Reads a time limit in seconds; none for `0`, `UNLIMITED` and `INFINITE`.
pub fn time(text: &str) -> Result<Option<u32>, LimitError> {
    let wrong = || LimitError::Time(text.to_owned());
    if ["unlimited", "infinite"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    let numbers = |text: &str| -> Result<Vec<u64>, LimitError> {
        text.split(':').map(|part| part.parse::<u32>().map(u64::from).map_err(|_| wrong())).collect()
    };
    let seconds = match text.split_once('-') {
        Some((days, rest)) => {
            let days: u64 = days.parse::<u32>().map_err(|_| wrong())?.into();
            let clock = match numbers(rest)?.as_slice() {
                [hours] => hours * 3600,
                [hours, minutes] => hours * 3600 + minutes * 60,
                [hours, minutes, seconds] => hours * 3600 + minutes * 60 + seconds,
                _ => return Err(wrong()),
            };
            days * 86_400 + clock
        }
        None => match numbers(text)?.as_slice() {
            [minutes] => minutes * 60,
            [minutes, seconds] => minutes * 60 + seconds,
            [hours, minutes, seconds] => hours * 3600 + minutes * 60 + seconds,
            _ => return Err(wrong()),
        },
    };
    let seconds = u32::try_from(seconds).ok().filter(|seconds| i32::try_from(*seconds).is_ok());
    Ok(Some(seconds.ok_or_else(wrong)?).filter(|seconds| *seconds > 0))
}

/// Reads an amount of memory as a Kubernetes quantity; none for `0`, which is all of a node to Slurm.
pub fn memory(text: &str) -> Result<Option<String>, LimitError> {
    let wrong = || LimitError::Memory(text.to_owned());
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "M"),
    };
    let unit = match unit.to_ascii_uppercase().as_str() {
        "K" | "KB" => "Ki",
        "M" | "MB" => "Mi",
        "G" | "GB" => "Gi",
        "T" | "TB" => "Ti",
        _ => return Err(wrong()),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    Ok((number > 0).then(|| format!("{number}{unit}")))
}

/// A quantity as [`memory`] writes it in MiB, rounded down; none for one of other units.
pub(crate) fn mebibytes(quantity: &str) -> Option<u64> {
    let (digits, unit) = quantity.split_at(quantity.len().checked_sub(2)?);
    let number: u64 = digits.parse().ok()?;
    match unit {
        "Ki" => Some(number >> 10),
        "Mi" => Some(number),
        "Gi" => Some(number << 10),
        "Ti" => Some(number << 20),
        _ => None,
    }
}

/// A signal that a job gets some time before its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The signal's name without `SIG`.
    pub signal: String,
    /// How many seconds before the end.
    pub seconds: u32,
}

/// Reads `USR1@60`, also with `B:` before it: the signal goes to the script in any case.
pub fn warning(text: &str) -> Result<Warning, LimitError> {
    const SIGNALS: [&str; 9] = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "ALRM", "WINCH"];
    let wrong = || LimitError::Signal(text.to_owned());
    let rest = text.strip_prefix("B:").unwrap_or(text);
    let (signal, seconds) = rest.split_once('@').unwrap_or((rest, "60"));
    let name = match signal {
        "1" => "HUP".to_owned(),
        "2" => "INT".to_owned(),
        "10" => "USR1".to_owned(),
        "12" => "USR2".to_owned(),
        "15" => "TERM".to_owned(),
        name => name.to_ascii_uppercase().trim_start_matches("SIG").to_owned(),
    };
    if !SIGNALS.contains(&name.as_str()) {
        return Err(wrong());
    }
    Ok(Warning { signal: name, seconds: seconds.parse().map_err(|_| wrong())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_slurm_does() {
        for (text, seconds) in [
            ("30", Some(1800)),
            ("1:30", Some(90)),
            ("2:00:01", Some(7201)),
            ("1-0", Some(86_400)),
            ("1-2:30", Some(95_400)),
            ("1-2:30:05", Some(95_405)),
            ("0", None),
            ("UNLIMITED", None),
        ] {
            assert_eq!(time(text), Ok(seconds), "{text}");
        }
        for text in ["", "soon", "1:2:3:4", "1-", "-1", "99999999"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_is_in_mebibytes_unless_a_unit_follows() {
        for (text, quantity) in
            [("512", "512Mi"), ("4G", "4Gi"), ("1t", "1Ti"), ("100K", "100Ki"), ("2GB", "2Gi")]
        {
            assert_eq!(memory(text), Ok(Some(quantity.to_owned())), "{text}");
        }
        let read = ["512Mi", "4Gi", "2Ti", "2048Ki", "4", "4G"].map(mebibytes);
        assert_eq!(read, [Some(512), Some(4096), Some(2 << 20), Some(2), None, None]);
        assert_eq!(memory("0"), Ok(None));
        assert!(memory("much").is_err() && memory("4X").is_err() && memory("").is_err());
    }

    #[test]
    fn a_signal_has_a_name_and_a_time() {
        for text in ["USR1@90", "SIGUSR1@90", "10@90", "B:USR1@90"] {
            assert_eq!(warning(text), Ok(Warning { signal: "USR1".into(), seconds: 90 }), "{text}");
        }
        assert_eq!(warning("TERM").map(|warning| warning.seconds), Ok(60));
        assert!(warning("BOGUS@1").is_err() && warning("USR1@x").is_err());
    }
}
