// The state of the policy, as plain data.

import type { PolicyVersion } from "./errors.js";

/** Something that is true or false of the server or an audience, such as `PolicyAccepted`. */
export interface Condition {
  readonly type: string;
  /** `True`, `False` or `Unknown`. */
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
  readonly lastTransitionTime: Date | undefined;
}

/** One problem at one place of a policy file. */
export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly code: string;
  readonly severity: string;
  readonly audience: string;
  readonly value: string;
  readonly message: string;
  readonly suggestion: string;
}

/** One try to make a policy of the files. */
export interface PolicyAttempt {
  readonly attemptTime: Date | undefined;
  readonly accepted: boolean;
  readonly digest: string;
  readonly findings: readonly Finding[];
  readonly findingCount: number;
}

/** The conditions of one audience. */
export interface AudienceStatus {
  readonly audience: string;
  readonly conditions: readonly Condition[];
}

/** Which policy serves, and what the last attempt to change it came to. */
export interface PolicyStatus {
  /** `undefined` before the first policy. */
  readonly active: PolicyVersion | undefined;
  readonly loadTime: Date | undefined;
  readonly source: string;
  readonly audienceCount: number;
  readonly lastAttempt: PolicyAttempt | undefined;
  readonly conditions: readonly Condition[];
  /** Those in trouble first; at most 1000. */
  readonly audienceStatuses: readonly AudienceStatus[];
  readonly audienceStatusCount: number;
}
