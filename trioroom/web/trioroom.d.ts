/** Types of trioroom.js. All times are seconds. */

/** Where one is in a room's history. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** What somebody published, or what the room sent to us alone. */
export interface Message<Data = unknown> {
  readonly data: Data;
  /** The member who caused it; null where there is none. */
  readonly sender: string | null;
  /** Its place in the room's history; null where it has none. */
  readonly position: Position | null;
}

/** Messages are missing here. */
export interface Gap {
  /**
   * `overflow`, `backplane` or `expired` as the server says; `reconnect`: what was missed while there was no connection
   * could not be recovered; `inbox`: our own inbox was full.
   */
  readonly reason: "overflow" | "backplane" | "expired" | "reconnect" | "inbox" | (string & {});
  /** How many; null where nobody knows. */
  readonly lost: number | null;
  /** What the next message follows, where that is known. */
  readonly position: Position | null;
}

/** A user who is in a room, and what the room shows of them. */
export interface PresentUser<Info = unknown> {
  readonly user: string;
  readonly info: Info | null;
}

/** Who came, or has another info now; who left; and how many are here. */
export interface PresenceDiff<Info = unknown> {
  readonly joined: readonly PresentUser<Info>[];
  readonly left: readonly string[];
  readonly count: number;
}

/** We are in the room again after a reconnect. */
export interface Rejoined<State = unknown> {
  /** What `on_join` returned this time. */
  readonly state: State | null;
  /** Whether all that was missed follows; if not, there is a gap. */
  readonly recovered: boolean;
}

/** What `Room.events` yields. */
export type RoomEvent<Data = unknown, Info = unknown, State = unknown> =
  | ({ readonly event: "message" } & Message<Data>)
  | ({ readonly event: "gap" } & Gap)
  | ({ readonly event: "presence" } & PresenceDiff<Info>)
  | ({ readonly event: "rejoined" } & Rejoined<State>);

/** What listeners of a room are called with. */
export interface RoomEvents<Data = unknown, Info = unknown, State = unknown> {
  message: Message<Data>;
  gap: Gap;
  presence: PresenceDiff<Info>;
  rejoined: Rejoined<State>;
  /** The room is over: the error that ended it, or null if the application did. */
  end: Error | null;
}

export interface HistoryPage<Data = unknown> {
  /** Oldest first. */
  readonly messages: readonly Message<Data>[];
  /** Where the history ends now. */
  readonly position: Position;
  /** Whether there are others: older ones, or with `after` newer ones. */
  readonly more: boolean;
}

export interface PresencePage<Info = unknown> {
  readonly members: readonly PresentUser<Info>[];
  readonly version: number;
  /** How many are here in all. */
  readonly count: number;
  readonly more: boolean;
}

export interface Abortable {
  /** Aborting it rejects with its reason. */
  signal?: AbortSignal;
}

export interface JoinOptions extends Abortable {
  /** Where one was in the room's history, as a page that was loaded anew remembers it: what was missed since follows. */
  position?: Position | null;
  /** Keep `Room.present` and `Room.count` current; false if left out. */
  presence?: boolean;
  /** How much waits to be read by `for await`; 1,000 if left out. */
  maxInbox?: number;
}

export interface PublishOptions extends Abortable {
  /** The id by which it counts once; a random one if left out. */
  publicationId?: string;
  /** False: sent once, without an answer, and only while we are in the room. */
  confirm?: boolean;
}

export interface CallOptions extends Abortable {
  /** Seconds for the server to answer, and for a connection to be there; no limit if left out. */
  timeout?: number;
}

export interface HistoryOptions extends Abortable {
  /** 1 to 1,000; 50 if left out. */
  limit?: number;
  before?: Position;
  after?: Position;
}

export interface WhoOptions extends Abortable {
  /** 1 to 1,000; 100 if left out. */
  limit?: number;
  /** The last user of the page before. */
  after?: string;
}

/** A room that we are in, or on our way to. Get it from `Client.join`. */
export interface Room<Data = unknown, Info = unknown, State = unknown> extends AsyncIterable<Message<Data>> {
  readonly name: string;
  /** Resolves with what `on_join` returned, once we are in the room for the first time; rejects if that fails. */
  readonly joined: Promise<State | null>;
  /** What `on_join` returned, the latest time. */
  readonly state: State | null;
  readonly position: Position | null;
  /** Who is here; empty without `presence: true`. */
  readonly present: ReadonlyMap<string, Info | null>;
  /** How many are here; null before that is known. */
  readonly count: number | null;

  /** Returns a function that removes the listener. */
  on<Name extends keyof RoomEvents>(
    event: Name,
    listener: (detail: RoomEvents<Data, Info, State>[Name]) => void,
  ): () => void;
  off<Name extends keyof RoomEvents>(event: Name, listener: (detail: RoomEvents<Data, Info, State>[Name]) => void): void;
  /** All that happens here, in order, from one inbox; ends with the room, by its error if it has one. */
  events(): AsyncGenerator<RoomEvent<Data, Info, State>, void, undefined>;
  /** The messages alone, from the same inbox. */
  [Symbol.asyncIterator](): AsyncGenerator<Message<Data>, void, undefined>;

  /** Rejects with RequestRefused, Unconfirmed, TooManyPending, Disconnected (`confirm: false`), or what ended the room. */
  publish(data: Data, options?: PublishOptions): Promise<void>;
  /** Rejects with RequestRefused, Disconnected, or what ended the room. */
  call<Answer = unknown>(data: unknown, options?: CallOptions): Promise<Answer>;
  history(options?: HistoryOptions): Promise<HistoryPage<Data>>;
  who(options?: WhoOptions): Promise<PresencePage<Info>>;
  /** For good. */
  leave(): void;
}

export type StateName = "connecting" | "open" | "waiting" | "closed";

export interface ClientState {
  readonly state: StateName;
  /** In `waiting`: seconds until the next try. */
  readonly after: number | null;
  /** Why the latest try failed, or what ended the client. */
  readonly error: Error | null;
}

export interface ClientEvents {
  state: ClientState;
  /** An error that answers no request that is waiting, as of a publication without confirmation. */
  error: RequestRefused;
}

/** What a WebSocket class has to give: the global one of browsers and Node, or that of the package ws. */
export type WebSocketClass = new (url: string, protocols?: string[]) => object;

export type Token = string | null | undefined;

export interface ConnectOptions {
  /** Who we are; a function is called before each connection, and before the token expires where the server says when. */
  token?: Token | (() => Token | Promise<Token>);
  codec?: "json" | "msgpack";
  WebSocket?: WebSocketClass;
  /** Seconds for each try to connect; 10 if left out. */
  connectTimeout?: number;
  /** How many publications may wait for their answers; 1,000 if left out. */
  maxPending?: number;
}

/** One connection to a server, made anew when it is lost, and the rooms one is in. Get it from `connect`. */
export interface Client {
  readonly state: StateName;
  readonly error: Error | null;
  on<Name extends keyof ClientEvents>(event: Name, listener: (detail: ClientEvents[Name]) => void): () => void;
  off<Name extends keyof ClientEvents>(event: Name, listener: (detail: ClientEvents[Name]) => void): void;
  /** Throws if the client is closed, or in that room already. */
  join<Data = unknown, Info = unknown, State = unknown>(name: string, options?: JoinOptions): Room<Data, Info, State>;
  /** Says who we are from now on: in joins that follow, and on each new connection. Rejects, and changes nothing, if the server does not take it. */
  authenticate(token: Token | (() => Token | Promise<Token>)): Promise<void>;
  /** Does not wait any longer for the next try. */
  reconnect(): void;
  /** Leaves all rooms and ends, for good. */
  close(): void;
}

/** Connects in the background, and comes back whenever the connection is lost. In a page, "/" is its own server. */
export function connect(url: string | URL, options?: ConnectOptions): Client;

/** What all errors of this client have in common. */
export class TrioroomError extends Error {
  constructor(message: string, retry?: boolean, options?: { cause?: unknown });
  /** Whether trying again may help. */
  readonly retry: boolean;
}

/** The server answered a request with an error. */
export class RequestRefused extends TrioroomError {
  constructor(code: string, message: string, retry?: boolean, after?: number | null);
  /** One of the protocol's, or `too_big`: it was not sent, as the server would have closed the connection. */
  readonly code: string;
  /** Seconds to wait before trying again, where that is known. */
  readonly after: number | null;
}

/** There is no connection, or it was lost before the answer came. */
export class Disconnected extends TrioroomError {
  constructor(message: string, options?: { cause?: unknown });
}

/** A publication was sent and not answered: it may have gone out or not. */
export class Unconfirmed extends TrioroomError {}

/** The server put us out of a room. */
export class Kicked extends TrioroomError {
  constructor(code: number, reason: string);
  readonly code: number;
  readonly reason: string;
}

/** The connection has ended: for good with a code that says not to come back. */
export class ConnectionClosed extends TrioroomError {
  constructor(code: number, reason: string, message?: string);
  readonly code: number;
  readonly reason: string;
}

/** More waits to be published than the client keeps. */
export class TooManyPending extends TrioroomError {
  constructor(message: string);
}

/** Why a connection ended: the catalogue of the server. */
export const CloseCode: {
  readonly NORMAL: 1000;
  readonly GOING_AWAY: 1001;
  readonly PROTOCOL_ERROR: 1002;
  readonly UNSUPPORTED_DATA: 1003;
  readonly NO_STATUS: 1005;
  readonly ABNORMAL: 1006;
  readonly INVALID_DATA: 1007;
  readonly POLICY_VIOLATION: 1008;
  readonly MESSAGE_TOO_BIG: 1009;
  readonly INTERNAL_ERROR: 1011;
  readonly SERVICE_RESTART: 1012;
  readonly TRY_AGAIN_LATER: 1013;
  readonly BAD_ENVELOPE: 4000;
  readonly JOIN_REFUSED: 4001;
  readonly KICKED: 4002;
  readonly UNAUTHENTICATED: 4003;
  readonly UNKNOWN_ROOM: 4004;
  readonly DISCONNECTED: 4005;
  readonly DRAIN: 4101;
  readonly SLOW_CONSUMER: 4108;
  readonly PING_TIMEOUT: 4110;
  readonly OVERLOAD: 4113;
  readonly TOKEN_EXPIRED: 4201;
};

/** Whether a client that was closed with `code` gains by coming back. */
export function shouldReconnect(code: number): boolean;
