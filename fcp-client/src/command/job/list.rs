//! `fcp job list`: which jobs there are. It fetches no secrets and connects to nobody.

use serde_json::{Value, json};

use crate::cli::JobOptions;
use crate::job::spec::{Action, Checked, JobFile, JobSpec};
use crate::ui;
use crate::ui::exit::ExitStatus;

/// Tells about every job; one that makes no sense is told as an error.
pub(super) fn run(options: &JobOptions, file: &JobFile) -> ExitStatus {
    let mut status = ExitStatus::Success;
    for job in &file.jobs {
        if let Err(errors) = &job.spec {
            status = ExitStatus::Usage;
            errors.iter().for_each(|error| ui::error(&error.to_string()));
        }
        match options.json {
            true => ui::line(&as_json(job).to_string()),
            false => as_text(job).iter().for_each(|line| ui::line(line)),
        }
    }
    if file.jobs.is_empty() && !options.json {
        let path = fcp_proto::escape(file.path.as_os_str().as_encoded_bytes());
        ui::error(&format!("{path} has no jobs"));
    }
    status
}

fn as_json(job: &Checked) -> Value {
    match &job.spec {
        Ok(spec) => json!({
            "job": spec.key,
            "name": spec.name,
            "description": spec.description,
            "source": spec.source.shown(),
            "destination": spec.destination.shown(),
            "file_pattern": spec.file_pattern.as_str(),
            "folder_pattern": spec.folder_pattern.to_string(),
            "action": action(spec),
        }),
        Err(errors) => {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            json!({ "job": job.key, "errors": errors })
        }
    }
}

/// A line for the job, and one for each thing about it.
fn as_text(job: &Checked) -> Vec<String> {
    let escape = fcp_proto::escape_text;
    let Ok(spec) = &job.spec else {
        return vec![format!("{}  (has mistakes, see above)", escape(&job.key))];
    };
    let mut title = escape(&spec.key);
    for more in [&spec.name, &spec.description] {
        if !more.is_empty() && *more != spec.key {
            title = format!("{title}  {}", escape(more));
        }
    }
    let pattern = match spec.file_pattern.as_str() {
        "" => "every file".to_owned(),
        pattern => escape(pattern),
    };
    let folders = match spec.folder_pattern.to_string().as_str() {
        "" => "the base itself".to_owned(),
        folders => escape(folders),
    };
    vec![
        title,
        format!("    from     {}", spec.source.shown()),
        format!("    to       {}", spec.destination.shown()),
        format!("    files    {pattern}  in {folders}"),
        format!("    then     {}", action(spec)),
    ]
}

fn action(spec: &JobSpec) -> String {
    let folder = fcp_proto::escape_text(&spec.done.folder);
    match (spec.done.action, spec.done.zip) {
        (Action::Move, true) => format!("MOVE zipped to {folder}"),
        (Action::Move, false) => format!("MOVE to {folder}"),
        (Action::Delete, _) => "DELETE".to_owned(),
        (Action::Keep, _) => "KEEP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_listed() {
        let yaml = "A:\n  source: {type: SFTP, host: h, user: u, password: hunter2, base_path: /in}\n  destination: {type: local, path: /out}\n";
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.yaml");
        std::fs::write(&path, yaml).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        let file = crate::job::spec::load(&path, &|_| Some("/home/a".into())).unwrap();
        let text = as_text(&file.jobs[0]).join("\n") + &as_json(&file.jobs[0]).to_string();
        assert!(text.contains("sftp://u@h/in") && text.contains("/out"), "{text}");
        assert!(!text.contains("hunter2") && !format!("{file:?}").contains("hunter2"));
    }
}
