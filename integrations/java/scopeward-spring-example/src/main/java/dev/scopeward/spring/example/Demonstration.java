package dev.scopeward.spring.example;

import dev.scopeward.testing.UserAgent;
import dev.scopeward.testing.UserAgent.Answer;
import dev.scopeward.testing.Tool;
import java.io.PrintStream;
import java.util.List;
import java.util.Map;
import org.springframework.context.ConfigurableApplicationContext;

/** A client that registers, logs in, refreshes and steps up, and one that asks for nothing. */
final class Demonstration {
    private final UserAgent browser;
    private final PrintStream output;
    private int steps;

    private Demonstration(UserAgent browser, PrintStream output) {
        this.browser = browser;
        this.output = output;
    }

    static void run(String target, PrintStream output) {
        try (ConfigurableApplicationContext server = Main.start(target, List.of())) {
            output.println("Scopeward on " + target + ", the authorization server on " + Main.base(server));
            UserAgent browser = new UserAgent(Main.base(server), Map.of("username", "user", "password", "password"));
            new Demonstration(browser, output).steps();
        }
    }

    private void steps() {
        Answer registered = Tool.register(browser, "openid");
        print("registers with `openid`", registered);
        Tool tool = Tool.of(browser, registered);
        Answer tokens = tool.login("openid offline_access");
        print("asks for `openid offline_access`", tokens);
        print("refreshes", tool.refresh(tokens));
        print("steps up with the same client: `mcp:write`", tool.login("openid mcp:write"));
        print("asks for `openid root`", tool.authorize("openid root"));
        print("asks for `openid profile`", tool.authorize("openid profile"));
        Tool silent = Tool.of(browser, Tool.register(browser, null));
        print("registers and asks without scope", silent.login(null));
        Tool device = new Tool(browser, "device", "secret of device");
        Answer codes = device.post("/oauth2/device_authorization", UserAgent.parameters("scope", "mcp:read offline_access"));
        browser.open("/oauth2/device_verification?user_code=" + codes.json().get("user_code").getAsString());
        print("a device asks for `mcp:read offline_access`", device.post("/oauth2/token", UserAgent.parameters(
                "grant_type", "urn:ietf:params:oauth:grant-type:device_code",
                "device_code", codes.json().get("device_code").getAsString())));
    }

    private void print(String what, Answer answer) {
        String result = answer.location() != null
                ? answer.redirected().get("error") + ": " + answer.redirected().get("error_description")
                : "`" + String.join(" ", Tool.scopes(answer)) + "`";
        output.printf("%-48s-> %s%n", ++steps + ". " + what, result);
    }
}
