// What tsc --strict is shown: how an application uses the types. It is compiled and not run.

import { CloseCode, connect, Kicked, RequestRefused, shouldReconnect, TooManyPending, TrioroomError, Unconfirmed } from "trioroom";
import type { Client, ClientState, HistoryPage, Message, Room, RoomEvent } from "trioroom";

interface Post {
  text: string;
}

interface Person {
  name: string;
}

const client: Client = connect("wss://example.test/", { token: async () => "t0k3n", codec: "msgpack", connectTimeout: 5 });
connect(new URL("ws://example.test/"), { token: "t", maxPending: 10 }).close();
const room: Room<Post, Person, { topic: string }> = client.join("chat/lobby", { presence: true, maxInbox: 10 });

const stop: () => void = client.on("state", ({ state, after, error }: ClientState) => {
  const waits: number = state === "waiting" && after !== null ? after : 0;
  console.log(waits, error instanceof TrioroomError && error.retry);
});
room.on("message", ({ data, sender, position }: Message<Post>) => console.log(data.text, sender?.length, position?.offset));
room.on("presence", ({ joined, left, count }) => console.log(joined[0]?.info?.name, left.length, count));
room.on("gap", ({ reason, lost }) => console.log(reason === "inbox", lost === null));
room.on("end", (error) => console.log(error instanceof Kicked ? error.reason : error?.message));

export async function chat(signal: AbortSignal): Promise<HistoryPage<Post>> {
  const topic: string | undefined = (await room.joined)?.topic;
  try {
    await room.publish({ text: topic ?? "" }, { signal, publicationId: "p1" });
    await room.publish({ text: "quickly" }, { confirm: false });
  } catch (error) {
    if (error instanceof RequestRefused) console.log(error.code, error.after);
    else if (error instanceof Unconfirmed || error instanceof TooManyPending) console.log(error.message, error.retry);
    else throw error;
  }
  const answer: number = await room.call<number>("how many?", { timeout: 2 });
  const people: readonly string[] = (await room.who({ limit: 10 })).members.map(({ user, info }) => info?.name ?? user);
  console.log(answer, people, room.present.get("ann")?.name, shouldReconnect(CloseCode.DRAIN));
  for await (const { data } of room) if (data.text === "stop") break;
  for await (const event of room.events()) if (told(event)) break;
  stop();
  return room.history({ limit: 2, before: { epoch: "e", offset: 4 } });
}

function told(event: RoomEvent<Post>): boolean {
  switch (event.event) {
    case "message":
      return event.data.text === "stop";
    case "gap":
      return event.lost === null;
    case "presence":
      return event.count === 0;
    case "rejoined":
      return !event.recovered;
  }
}

// @ts-expect-error: there is no such event
room.on("mesage", () => {});
// @ts-expect-error: this is no Post
void room.publish("text");
// @ts-expect-error: there is no such codec
connect("/", { codec: "xml" });
