use super::*;

struct Files {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Files {
    fn new(config: Option<&str>, credentials: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(".aws")).unwrap();
        for (name, text) in [("config", config), ("credentials", credentials)] {
            if let Some(text) = text {
                std::fs::write(directory.path().join(".aws").join(name), text).unwrap();
            }
        }
        let home = directory.path().to_string_lossy().into_owned();
        Self {
            directory,
            variables: vec![("HOME".to_owned(), home)],
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn environment(&self) -> Environment {
        self.variables.iter().cloned().collect()
    }
}

const CREDENTIALS: &str = "[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key = s/e+c\\r=et\n\
    # a comment\n[other]\naws_access_key_id=AKOTHER\naws_secret_access_key=\"quoted\"\naws_session_token = tok;en\n";

const CONFIG: &str = "[default]\nregion = eu-west-1\ns3 =\n  max_concurrent_requests = 20\n\
    [profile other]\nregion = us-west-2\nendpoint_url = https://s3.example\n\
    [profile role]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = default\n";

#[test]
fn the_default_profile_is_taken_as_it_stands() {
    let files = Files::new(Some(CONFIG), Some(CREDENTIALS));
    let settings = files.environment().aws_profile(None).unwrap();
    assert_eq!(settings["aws_access_key_id"], "AKDEFAULT");
    assert_eq!(settings["aws_secret_access_key"], "s/e+c\\r=et");
    assert_eq!(settings["aws_region"], "eu-west-1");
}

#[test]
fn a_profile_is_chosen_by_variable_or_option() {
    let files = Files::new(Some(CONFIG), Some(CREDENTIALS)).with("AWS_PROFILE", "other");
    let settings = files.environment().aws_profile(None).unwrap();
    assert_eq!(settings["aws_access_key_id"], "AKOTHER");
    assert_eq!(settings["aws_endpoint_url"], "https://s3.example");
    assert_eq!(settings["aws_region"], "us-west-2");
    let settings = files.environment().aws_profile(Some("default")).unwrap();
    assert_eq!(settings["aws_access_key_id"], "AKDEFAULT");
}

#[test]
fn the_files_may_lie_elsewhere() {
    let files = Files::new(None, None);
    let elsewhere = files.directory.path().join("keys");
    std::fs::write(&elsewhere, CREDENTIALS).unwrap();
    let files = files.with("AWS_SHARED_CREDENTIALS_FILE", &elsewhere.to_string_lossy());
    assert_eq!(
        files.environment().aws_profile(None).unwrap()["aws_access_key_id"],
        "AKDEFAULT"
    );
}

#[test]
fn without_files_there_is_nothing_and_no_error() {
    assert!(
        Files::new(None, None)
            .environment()
            .aws_profile(None)
            .unwrap()
            .is_empty()
    );
    assert!(Environment::default().aws_profile(None).unwrap().is_empty());
}

#[test]
fn a_named_profile_must_exist_and_hold_keys() {
    let files = Files::new(Some(CONFIG), Some(CREDENTIALS));
    for (profile, expected) in [("missing", "no profile"), ("role", "role_arn")] {
        let error = files
            .environment()
            .aws_profile(Some(profile))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("aws_profile") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn a_broken_file_is_an_error_that_names_it_and_shows_no_secret() {
    let files = Files::new(None, Some("[default\naws_secret_access_key = hidden"));
    let error = files.environment().aws_profile(None).unwrap_err().to_string();
    assert!(
        error.contains("credentials") && !error.contains("hidden"),
        "{error}"
    );
}

#[test]
fn the_environment_shows_no_values() {
    let files = Files::new(None, None).with("AWS_SECRET_ACCESS_KEY", "hidden");
    let shown = format!("{:?}", files.environment());
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("hidden"));
}
