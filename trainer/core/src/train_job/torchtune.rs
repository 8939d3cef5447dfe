//! What torchtune is told: `tune run` takes its arguments instead of torchrun's variables.

use muster_trainer_api::train_job::names::NODE;

use super::render::{Draft, container, is_trainer};
use super::torch::Processes;

/// Whether a command is `tune run`.
pub(super) fn is_command(command: &[String]) -> bool {
    command.len() >= 2 && command[0] == "tune" && command[1] == "run"
}

/// Completes `tune run` of the job with what the runtime's own command says: where the nodes meet, the recipe and
/// its configuration (as the job's LoRA settings and the number of processes ask for), and where things are.
pub(super) fn complete(draft: &mut Draft<'_>, processes: Processes, meeting: &str) {
    let is_alone = draft.nodes == 1 && processes == Processes::Count(1);
    let arguments = draft.trainer().args;
    let of_runtime = draft.spec.replicated_jobs.iter().position(is_trainer);
    let runtime = draft.runtime_command.clone();
    let Some(group) = of_runtime.and_then(|place| draft.spec.replicated_jobs.get_mut(place)) else { return };
    let Some(node) = container(group, NODE) else { return };
    let lora = arguments.iter().any(|argument| argument.starts_with("model.lora_"));
    let quantized =
        arguments.iter().any(|argument| argument.eq_ignore_ascii_case("model.quantize_base=true"));
    let mut command = vec!["tune".to_owned(), "run".to_owned()];
    if !is_alone {
        command.push(format!("--rdzv_endpoint={meeting}"));
    }
    let kind = if lora { "lora" } else { "full" };
    let devices = if is_alone { "single_device" } else { "distributed" };
    command.push(format!("{kind}_finetune_{devices}"));
    if let Some(configuration) = configuration(&runtime) {
        let base = configuration.rsplit_once('_').map_or(configuration, |(base, _)| base);
        let kind = if lora && quantized { "qlora" } else { kind };
        let suffix = if is_alone { "_single_device" } else { "" };
        command.push("--config".to_owned());
        command.push(format!("{base}_{kind}{suffix}"));
    }
    let places = runtime.iter().filter(|word| {
        ["output_dir=", "tokenizer.path=", "tokenizer.merges_file=", "checkpointer.checkpoint_dir="]
            .iter()
            .any(|key| word.starts_with(key))
    });
    command.extend(places.cloned());
    node.command = Some(command);
}

/// What the runtime's command names as its configuration.
fn configuration(command: &[String]) -> Option<&str> {
    let place = command.iter().position(|word| word == "--config")?;
    command.get(place + 1).map(String::as_str)
}
