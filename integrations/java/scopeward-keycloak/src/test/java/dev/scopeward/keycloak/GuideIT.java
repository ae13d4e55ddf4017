package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.scopeward.testing.Service;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;

/** The guide is true: from its policy to a login, with the servers of the tests in the place of those that it starts. */
class GuideIT extends McpRealm {
    private static final Path ROOT = Path.of("../../..");
    private static final Pattern FENCE = Pattern.compile("^```([^\n]*)\n(.*?)^```$", Pattern.DOTALL | Pattern.MULTILINE);
    private static final Pattern STEP = Pattern.compile("^\\$ ([^\n]*)\n((?:(?!\\$ )[^\n]*\n)*)", Pattern.MULTILINE);

    @Test
    void the_guide_leads_to_a_login() throws Exception {
        String guide = Files.readString(ROOT.resolve("docs/guides/keycloak.md"));
        int commands = 0;
        boolean hasPolicy = false;
        for (Matcher fence = FENCE.matcher(guide); fence.find();) {
            if (fence.group(1).equals("yaml")) {
                assertEquals(Service.POLICY, fence.group(2));
                hasPolicy = true;
            } else if (fence.group(1).equals("console no-run keycloak")) {
                for (Matcher step = STEP.matcher(fence.group(2)); step.find(); commands++) {
                    assertEquals(step.group(2), run(step.group(1)), step.group(1));
                }
            }
        }
        assertTrue(hasPolicy);
        assertEquals(6, commands);
        assertTrue(guide.contains("--spi-client-policy-executor--scopeward--target=127.0.0.1:50551"));
    }

    private static String run(String command) throws IOException, InterruptedException {
        ProcessBuilder builder = new ProcessBuilder(List.of("bash", "-c", command)).directory(ROOT.toFile()).redirectErrorStream(true);
        builder.environment().put("KEYCLOAK_URL", keycloak.url());
        Process process = builder.start();
        String printed = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), () -> command + "\n" + printed);
        return printed;
    }
}
