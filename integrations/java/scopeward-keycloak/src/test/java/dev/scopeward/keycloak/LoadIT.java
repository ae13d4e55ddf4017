package dev.scopeward.keycloak;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Many logins at once, while Scopeward answers and while it hangs. */
class LoadIT extends McpRealm {
    @Test
    void two_hundred_logins_at_once_are_all_answered() throws Exception {
        JsonObject client = register("openid");
        JsonElement profiles = admin("GET", "/client-policies/profiles", null);
        admin("PUT", "/client-policies/profiles", profiles(Map.of("deadline", "10s")));
        ExecutorService pool = Executors.newFixedThreadPool(200);
        try {
            List<Future<Map<String, String>>> logins =
                    Stream.generate(() -> pool.submit(() -> authorizeAsGuest(client))).limit(200).toList();
            for (Future<Map<String, String>> login : logins) {
                assertEquals(Map.of(), login.get());
            }
        } finally {
            pool.shutdownNow();
            admin("PUT", "/client-policies/profiles", profiles);
        }
    }

    @Test
    void a_service_that_hangs_does_not_hold_up_what_asks_nothing() throws Exception {
        JsonObject client = register("openid");
        ExecutorService pool = Executors.newFixedThreadPool(200);
        scopeward.pause();
        try {
            int before = keycloak.log().size();
            List<Future<Map<String, String>>> logins = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                logins.add(pool.submit(() -> authorizeAsGuest(client)));
            }
            int answered = 0;
            while (!logins.stream().allMatch(Future::isDone)) {
                assertEquals(200, keycloak.send("GET", REALM + "/.well-known/openid-configuration", null, null, null).status());
                answered++;
            }
            assertTrue(answered > 0);
            for (Future<Map<String, String>> login : logins) {
                assertUnavailable(login.get().get("error"));
            }
            List<String> log = keycloak.log().stream().skip(before).toList();
            long waits = log.stream().filter(line -> line.contains("no answer from Scopeward")).count();
            assertTrue(waits < 100, () -> waits + " logins waited for the deadline");
            assertTrue(log.stream().anyMatch(line -> line.contains("does not answer: requests are refused")));
        } finally {
            scopeward.resume();
            pool.shutdownNow();
        }
        for (int i = 0; i < 1000 && authorizeAsGuest(client).containsKey("error"); i++) {
            Thread.onSpinWait();
        }
        assertGranted(login(id(client), "openid"), "openid");
    }
}
