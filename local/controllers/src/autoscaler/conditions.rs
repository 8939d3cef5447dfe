//! The conditions of an autoscaler. Pure.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Whether the number can be read and written.
    AbleToScale,
    /// Whether metrics say what the number should be.
    ScalingActive,
    /// Whether a bound or a rate keeps the number from what metrics ask for.
    ScalingLimited,
}

impl About {
    fn as_str(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
        }
    }
}

/// Says something; the time changes only with the truth of it.
pub(super) fn set(
    conditions: &mut Vec<HorizontalPodAutoscalerCondition>,
    about: About,
    is_true: bool,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let status = if is_true { "True" } else { "False" };
    let mut told = HorizontalPodAutoscalerCondition {
        type_: about.as_str().to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == about.as_str()) {
        Some(before) => {
            if before.status == status {
                told.last_transition_time = before.last_transition_time.take();
            }
            *before = told;
        }
        None => conditions.push(told),
    }
}
