//! Tests of `cli`.

use super::testing::words;
use super::*;

fn read(line: &str) -> Result<Cli, clap::Error> {
    Line::read(words(line)).map(|line| line.0)
}

fn serving(line: &str) -> (Option<String>, Option<String>) {
    let cli = read(line).unwrap();
    let serve = match cli.command {
        Some(Command::Serve(serve)) => serve,
        None => cli.serve,
        Some(_) => panic!("{line} doesn't serve"),
    };
    (serve.place.config.map(|path| path.to_string_lossy().into_owned()), serve.place.node)
}

#[test]
fn a_node_is_run_with_and_without_the_word_serve() {
    let n1 = (Some("a.toml".into()), Some("n1".into()));
    for line in [
        "tidegate --config a.toml --node n1",
        "tidegate serve --config a.toml --node n1",
        "tidegate --config a.toml serve --node n1",
        "tidegate --config b.toml serve --node n1 --config a.toml",
    ] {
        assert_eq!(serving(line), n1, "{line}");
    }
    assert_eq!(serving("tidegate"), (None, None));
}

#[test]
fn where_a_node_is_and_whom_it_asks_is_said_before_or_after_the_word_serve() {
    for line in [
        "tidegate --http 127.0.0.1:7074 --peer 127.0.0.1:7174 --data-dir d --join http://h:1",
        "tidegate serve --http 127.0.0.1:7074 --peer 127.0.0.1:7174 --data-dir d --join \
         http://h:1",
        "tidegate --http 127.0.0.1:7074 --data-dir d serve --peer 127.0.0.1:7174 --join \
         http://h:1",
        "tidegate --http 127.0.0.1:1 --data-dir e --peer 127.0.0.1:7174 serve --http \
         127.0.0.1:7074 --data-dir d --join http://h:1",
    ] {
        let cli = read(line).unwrap();
        let serve = match cli.command {
            Some(Command::Serve(serve)) => serve,
            _ => cli.serve,
        };
        let ports = (serve.place.http.map(|at| at.port()), serve.place.peer.map(|at| at.port()));
        assert_eq!(ports, (Some(7074), Some(7174)), "{line}");
        assert_eq!(serve.place.data_dir.as_deref(), Some(std::path::Path::new("d")), "{line}");
        assert_eq!(serve.join.as_deref(), Some("http://h:1"), "{line}");
    }
}

#[test]
fn a_flag_for_running_a_node_is_refused_before_another_command() {
    let refused = read("tidegate --node n2 check acme").err().unwrap();
    assert_eq!(refused.exit_code(), 2);
    assert!(refused.to_string().contains("--node is for running a node"), "{refused}");
}

#[test]
fn the_global_flags_work_anywhere_on_the_line() {
    for line in [
        "tidegate --url http://h:1 --token t -o json policy get",
        "tidegate policy --url http://h:1 --token t -o json get",
        "tidegate policy get --url http://h:1 --token=t --output=json",
    ] {
        let cli = read(line).unwrap();
        assert_eq!(cli.output, Format::Json, "{line}");
        assert_eq!(cli.server.url, "http://h:1", "{line}");
        assert_eq!(cli.server.token.as_deref(), Some("t"), "{line}");
    }
}

#[test]
fn only_connection_and_node_settings_have_variables() {
    const WITH: [&str; 19] = [
        "url",
        "token",
        "ca-cert",
        "output",
        "api-key",
        "config",
        "node",
        "http",
        "peer",
        "http-advertise",
        "peer-advertise",
        "data-dir",
        "join",
        "weight",
        "http-hosts",
        "insecure-no-auth",
        "log",
        "log-format",
        "stop-at-eof",
    ];
    for (name, command) in commands() {
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap_or_default();
            let is_for_one_entry = name == "tidegate access add" && flag == "api-key";
            // A variable that says where a node keeps its data must not make this another
            // command.
            let is_of_stopped = name.ends_with(" backup") && flag == "data-dir";
            let may = WITH.contains(&flag) && !is_for_one_entry && !is_of_stopped;
            let variable =
                argument.get_env().map(|variable| variable.to_string_lossy().into_owned());
            assert_eq!(variable.is_some(), may && name != "tidegate dev", "{name} --{flag}");
            assert!(
                variables::warnings(variable.into_iter(), &BTreeSet::new()).is_empty(),
                "{name} --{flag}"
            );
        }
    }
}

#[test]
fn every_command_has_an_example() {
    for (name, command) in commands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:\n  "), "{name}");
    }
}

#[test]
fn no_two_flags_share_a_variable_but_those_that_say_where_a_node_is() {
    let place = NodeArgs::augment_args(clap::Command::new("node"));
    let of_place: Vec<_> = place.get_arguments().map(|argument| argument.get_id()).collect();
    let mut seen = std::collections::BTreeMap::new();
    // These two are there a second time, under a longer or a shorter name.
    let again = ["tidegate serve", "tidegate backup"];
    for (name, command) in
        commands().into_iter().filter(|(name, _)| !again.contains(&name.as_str()))
    {
        for argument in command.get_arguments() {
            if let Some(variable) = argument.get_env() {
                let flag = format!("{name} {}", argument.get_id());
                let other = seen.insert(variable.to_owned(), flag.clone());
                assert!(
                    other.is_none() || of_place.contains(&argument.get_id()),
                    "{flag}: {other:?}"
                );
            }
        }
    }
}

#[test]
fn every_example_is_understood() {
    let mut examples = 0;
    for (_, command) in commands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            // `VARIABLE=x tidegate …`, `… | tidegate …` and `tidegate …     what it does`
            let from = line.find("tidegate ").or(line.find("tidegate")).unwrap();
            let call = line[from..].split("  ").next().unwrap();
            let call = call.split([';', '|', '>']).next().unwrap();
            assert!(read(call).is_ok(), "{line}: {:?}", read(call).err());
            examples += 1;
        }
    }
    assert!(examples > 15, "{examples}");
}

#[test]
fn a_misused_line_exits_2_and_help_exits_0() {
    for line in [
        "tidegate --colour",
        "tidegate check",
        "tidegate check acme --cost 0",
        "tidegate dev --nodes 0",
        "tidegate dev --nodes 10",
        "tidegate dev --http-port 65536",
        "tidegate policy",
        "tidegate tenant show",
        "tidegate completions",
        "tidegate -o yaml policy get",
    ] {
        assert_eq!(read(line).err().map(|e| e.exit_code()), Some(2), "{line}");
    }
    for line in ["tidegate --help", "tidegate policy diff --help", "tidegate --version"] {
        assert_eq!(read(line).err().map(|e| e.exit_code()), Some(0), "{line}");
    }
}

#[test]
fn colour_is_for_terminals_alone_and_never_with_no_color() {
    let set = |value: &str| Some(value.into());
    for (is_terminal, no_color, coloured) in [
        (true, None, true),
        (true, set(""), true),
        (true, set("1"), false),
        (true, set("0"), false),
        (false, None, false),
        (false, set("1"), false),
    ] {
        assert_eq!(
            is_coloured(is_terminal, no_color.clone()),
            coloured,
            "{is_terminal} {no_color:?}"
        );
    }
}

#[test]
fn the_parser_holds_together() {
    Cli::command().debug_assert();
}
