//! Config file: TOML, Kafka's `server.properties`, and Kafka's container-image variables as one map.

use std::collections::BTreeMap;

/// Where a value was given, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub value: String,
    pub origin: String,
}

pub type Settings = BTreeMap<String, Given>;

/// Reads `text` as the format its file name says: `.properties`, else TOML.
pub fn parse(file_name: &str, text: &str) -> Result<Settings, String> {
    if file_name.ends_with(".properties") {
        Ok(parse_properties(file_name, text))
    } else {
        parse_toml(file_name, text)
    }
}

/// Java's properties, as far as Kafka's own files use them: `key=value` or `key: value`, comments
/// with `#` or `!`, a trailing backslash continues the line.
fn parse_properties(file_name: &str, text: &str) -> Settings {
    let mut settings = Settings::new();
    let mut pending = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if pending.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        if let Some(continued) = line.strip_suffix('\\') {
            pending.push_str(continued);
            continue;
        }
        pending.push_str(line);
        let whole = std::mem::take(&mut pending);
        let (key, value) = whole.split_once(['=', ':']).unwrap_or((&whole, ""));
        let origin = format!("{file_name}, line {}", index + 1);
        settings.insert(key.trim().to_string(), Given { value: value.trim().to_string(), origin });
    }
    settings
}

fn parse_toml(file_name: &str, text: &str) -> Result<Settings, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{file_name}: {error}"))?;
    let mut settings = Settings::new();
    flatten(file_name, "", &table, &mut settings)?;
    Ok(settings)
}

fn flatten(
    file_name: &str,
    prefix: &str,
    table: &toml::Table,
    settings: &mut Settings,
) -> Result<(), String> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(file_name, &name, inner, settings)?;
                continue;
            }
            toml::Value::Array(items) => {
                let items: Option<Vec<String>> = items.iter().map(scalar).collect();
                items.map(|items| items.join(","))
            }
            other => scalar(other),
        };
        let value = value.ok_or_else(|| format!("{file_name}: {name} has a value of no usable type"))?;
        settings.insert(name, Given { value, origin: file_name.to_string() });
    }
    Ok(())
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Variables of Kafka's container image: `KAFKA_LOG_RETENTION_MS` is `log.retention.ms`; one, two
/// and three underscores stand for `.`, `_` and `-`. Those of the image's own scripts are left out.
pub fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Settings {
    const OF_THE_SCRIPTS: &[&str] = &[
        "VERSION",
        "HOME",
        "OPTS",
        "HEAP_OPTS",
        "JVM_PERFORMANCE_OPTS",
        "GC_LOG_OPTS",
        "JMX_OPTS",
        "JMX_PORT",
        "LOG4J_OPTS",
        "LOG4J_ROOT_LOGLEVEL",
        "LOG4J_LOGGERS",
        "TOOLS_LOG4J_LOGLEVEL",
        "DEBUG",
    ];
    variables
        .filter_map(|(variable, value)| {
            let name = variable.strip_prefix("KAFKA_")?;
            if OF_THE_SCRIPTS.contains(&name) {
                return None;
            }
            let origin = format!("environment variable {variable}");
            Some((setting_name(name), Given { value, origin }))
        })
        .collect()
}

fn setting_name(variable: &str) -> String {
    let mut name = String::new();
    let mut rest = variable;
    while !rest.is_empty() {
        let plain = rest.find('_').unwrap_or(rest.len());
        name.push_str(&rest[..plain].to_ascii_lowercase());
        rest = &rest[plain..];
        let run = rest.bytes().take_while(|byte| *byte == b'_').count();
        match run {
            0 => {}
            1 => name.push('.'),
            2 => name.push('_'),
            _ => name.push('-'),
        }
        rest = &rest[run..];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(settings: Settings) -> Vec<(String, String)> {
        settings.into_iter().map(|(name, given)| (name, given.value)).collect()
    }

    #[test]
    fn the_three_forms_say_the_same() {
        let expected = vec![
            ("listeners".to_string(), "PLAINTEXT://a:1,PLAINTEXT://b:2".to_string()),
            ("log.retention.ms".to_string(), "5".to_string()),
        ];
        let toml = "log.retention.ms = 5\nlisteners = ['PLAINTEXT://a:1', 'PLAINTEXT://b:2']\n";
        assert_eq!(parse("c.toml", toml).map(values), Ok(expected.clone()));
        let properties = "# c\nlog.retention.ms=5\n\nlisteners=PLAINTEXT://a:1,\\\n  PLAINTEXT://b:2\n";
        assert_eq!(parse("c.properties", properties).map(values), Ok(expected.clone()));
        let variables = [
            ("KAFKA_LOG_RETENTION_MS", "5"),
            ("KAFKA_LISTENERS", "PLAINTEXT://a:1,PLAINTEXT://b:2"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("PATH", "/bin"),
        ];
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(values(from_environment(variables)), expected);
    }

    #[test]
    fn underscores_stand_for_what_kafkas_image_says() {
        assert_eq!(setting_name("A_B__C___D"), "a.b_c-d");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_with_its_name() {
        assert!(parse("c.toml", "= 1").is_err_and(|error| error.starts_with("c.toml")));
    }
}
