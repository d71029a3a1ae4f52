"""Every RPC as the client needs it. Generated; never edited."""

from typing import NamedTuple


class Method(NamedTuple):
    """One RPC: `request` and `response` are full message names; an idempotent one may be sent again under its key."""

    path: str
    request: str
    response: str
    server_streaming: bool
    idempotent: bool
    read_only: bool


METHODS: dict[str, Method] = {
    "AdminService.GetServerInfo": Method("/kfm.admin.v1.AdminService/GetServerInfo", "kfm.admin.v1.GetServerInfoRequest", "kfm.admin.v1.GetServerInfoResponse", False, True, True),
    "AdminService.GetConfig": Method("/kfm.admin.v1.AdminService/GetConfig", "kfm.admin.v1.GetConfigRequest", "kfm.admin.v1.GetConfigResponse", False, True, True),
    "AdminService.ReloadConfig": Method("/kfm.admin.v1.AdminService/ReloadConfig", "kfm.admin.v1.ReloadConfigRequest", "kfm.admin.v1.ReloadConfigResponse", False, True, False),
    "AdminService.ListWorkers": Method("/kfm.admin.v1.AdminService/ListWorkers", "kfm.admin.v1.ListWorkersRequest", "kfm.admin.v1.ListWorkersResponse", False, True, True),
    "AdminService.ListDeadLetters": Method("/kfm.admin.v1.AdminService/ListDeadLetters", "kfm.admin.v1.ListDeadLettersRequest", "kfm.admin.v1.ListDeadLettersResponse", False, True, True),
    "AdminService.GetDeadLetter": Method("/kfm.admin.v1.AdminService/GetDeadLetter", "kfm.admin.v1.GetDeadLetterRequest", "kfm.admin.v1.GetDeadLetterResponse", False, True, True),
    "AdminService.ReplayDeadLetter": Method("/kfm.admin.v1.AdminService/ReplayDeadLetter", "kfm.admin.v1.ReplayDeadLetterRequest", "kfm.admin.v1.ReplayDeadLetterResponse", False, True, False),
    "AdminService.DropDeadLetter": Method("/kfm.admin.v1.AdminService/DropDeadLetter", "kfm.admin.v1.DropDeadLetterRequest", "kfm.admin.v1.DropDeadLetterResponse", False, True, False),
    "EventService.WatchEvents": Method("/kfm.event.v1.EventService/WatchEvents", "kfm.event.v1.WatchEventsRequest", "kfm.event.v1.WatchEventsResponse", True, True, True),
    "MemoryService.DropCollection": Method("/kfm.memory.v1.MemoryService/DropCollection", "kfm.memory.v1.DropCollectionRequest", "kfm.memory.v1.DropCollectionResponse", False, True, False),
    "MemoryService.EraseUser": Method("/kfm.memory.v1.MemoryService/EraseUser", "kfm.memory.v1.EraseUserRequest", "kfm.memory.v1.EraseUserResponse", False, True, False),
    "MemoryService.ExportUser": Method("/kfm.memory.v1.MemoryService/ExportUser", "kfm.memory.v1.ExportUserRequest", "kfm.memory.v1.ExportUserResponse", True, True, True),
    "MemoryService.Forget": Method("/kfm.memory.v1.MemoryService/Forget", "kfm.memory.v1.ForgetRequest", "kfm.memory.v1.ForgetResponse", False, True, False),
    "MemoryService.ListCollections": Method("/kfm.memory.v1.MemoryService/ListCollections", "kfm.memory.v1.ListCollectionsRequest", "kfm.memory.v1.ListCollectionsResponse", False, True, True),
    "MemoryService.ListDocuments": Method("/kfm.memory.v1.MemoryService/ListDocuments", "kfm.memory.v1.ListDocumentsRequest", "kfm.memory.v1.ListDocumentsResponse", False, True, True),
    "MemoryService.ListFacts": Method("/kfm.memory.v1.MemoryService/ListFacts", "kfm.memory.v1.ListFactsRequest", "kfm.memory.v1.ListFactsResponse", False, True, True),
    "MemoryService.PutDocument": Method("/kfm.memory.v1.MemoryService/PutDocument", "kfm.memory.v1.PutDocumentRequest", "kfm.memory.v1.PutDocumentResponse", False, True, False),
    "MemoryService.Remember": Method("/kfm.memory.v1.MemoryService/Remember", "kfm.memory.v1.RememberRequest", "kfm.memory.v1.RememberResponse", False, True, False),
    "MemoryService.RemoveDocument": Method("/kfm.memory.v1.MemoryService/RemoveDocument", "kfm.memory.v1.RemoveDocumentRequest", "kfm.memory.v1.RemoveDocumentResponse", False, True, False),
    "MemoryService.SearchKnowledge": Method("/kfm.memory.v1.MemoryService/SearchKnowledge", "kfm.memory.v1.SearchKnowledgeRequest", "kfm.memory.v1.SearchKnowledgeResponse", False, True, True),
    "PersonalityService.GetPersonality": Method("/kfm.personality.v1.PersonalityService/GetPersonality", "kfm.personality.v1.GetPersonalityRequest", "kfm.personality.v1.GetPersonalityResponse", False, True, True),
    "PersonalityService.ListPacks": Method("/kfm.personality.v1.PersonalityService/ListPacks", "kfm.personality.v1.ListPacksRequest", "kfm.personality.v1.ListPacksResponse", False, True, True),
    "PersonalityService.ListPersonalities": Method("/kfm.personality.v1.PersonalityService/ListPersonalities", "kfm.personality.v1.ListPersonalitiesRequest", "kfm.personality.v1.ListPersonalitiesResponse", False, True, True),
    "ProviderService.Embed": Method("/kfm.provider.v1.ProviderService/Embed", "kfm.provider.v1.EmbedRequest", "kfm.provider.v1.EmbedResponse", False, False, False),
    "ProviderService.Generate": Method("/kfm.provider.v1.ProviderService/Generate", "kfm.provider.v1.GenerateRequest", "kfm.provider.v1.GenerateResponse", False, True, False),
    "ProviderService.ListModels": Method("/kfm.provider.v1.ProviderService/ListModels", "kfm.provider.v1.ListModelsRequest", "kfm.provider.v1.ListModelsResponse", False, True, True),
    "ProviderService.StreamGenerate": Method("/kfm.provider.v1.ProviderService/StreamGenerate", "kfm.provider.v1.StreamGenerateRequest", "kfm.provider.v1.StreamGenerateResponse", True, False, False),
    "SessionService.GetSession": Method("/kfm.session.v1.SessionService/GetSession", "kfm.session.v1.GetSessionRequest", "kfm.session.v1.GetSessionResponse", False, True, True),
    "SessionService.ListSessions": Method("/kfm.session.v1.SessionService/ListSessions", "kfm.session.v1.ListSessionsRequest", "kfm.session.v1.ListSessionsResponse", False, True, True),
    "SessionService.ListMessages": Method("/kfm.session.v1.SessionService/ListMessages", "kfm.session.v1.ListMessagesRequest", "kfm.session.v1.ListMessagesResponse", False, True, True),
    "TurnService.SubmitTurn": Method("/kfm.turn.v1.TurnService/SubmitTurn", "kfm.turn.v1.SubmitTurnRequest", "kfm.turn.v1.SubmitTurnResponse", False, True, False),
    "TurnService.RunTurn": Method("/kfm.turn.v1.TurnService/RunTurn", "kfm.turn.v1.RunTurnRequest", "kfm.turn.v1.RunTurnResponse", True, True, False),
    "TurnService.WatchTurn": Method("/kfm.turn.v1.TurnService/WatchTurn", "kfm.turn.v1.WatchTurnRequest", "kfm.turn.v1.WatchTurnResponse", True, True, True),
    "TurnService.WaitTurn": Method("/kfm.turn.v1.TurnService/WaitTurn", "kfm.turn.v1.WaitTurnRequest", "kfm.turn.v1.WaitTurnResponse", False, True, True),
    "TurnService.GetTurn": Method("/kfm.turn.v1.TurnService/GetTurn", "kfm.turn.v1.GetTurnRequest", "kfm.turn.v1.GetTurnResponse", False, True, True),
    "TurnService.ListTurns": Method("/kfm.turn.v1.TurnService/ListTurns", "kfm.turn.v1.ListTurnsRequest", "kfm.turn.v1.ListTurnsResponse", False, True, True),
    "TurnService.ListTurnEvents": Method("/kfm.turn.v1.TurnService/ListTurnEvents", "kfm.turn.v1.ListTurnEventsRequest", "kfm.turn.v1.ListTurnEventsResponse", False, True, True),
    "TurnService.CancelTurn": Method("/kfm.turn.v1.TurnService/CancelTurn", "kfm.turn.v1.CancelTurnRequest", "kfm.turn.v1.CancelTurnResponse", False, True, False),
    "TurnService.PauseTurn": Method("/kfm.turn.v1.TurnService/PauseTurn", "kfm.turn.v1.PauseTurnRequest", "kfm.turn.v1.PauseTurnResponse", False, True, False),
    "TurnService.ResumeTurn": Method("/kfm.turn.v1.TurnService/ResumeTurn", "kfm.turn.v1.ResumeTurnRequest", "kfm.turn.v1.ResumeTurnResponse", False, True, False),
    "TurnService.RetryTurn": Method("/kfm.turn.v1.TurnService/RetryTurn", "kfm.turn.v1.RetryTurnRequest", "kfm.turn.v1.RetryTurnResponse", False, True, False),
    "TurnService.ForkTurn": Method("/kfm.turn.v1.TurnService/ForkTurn", "kfm.turn.v1.ForkTurnRequest", "kfm.turn.v1.ForkTurnResponse", False, True, False),
    "TurnService.ReadStepOutput": Method("/kfm.turn.v1.TurnService/ReadStepOutput", "kfm.turn.v1.ReadStepOutputRequest", "kfm.turn.v1.ReadStepOutputResponse", False, True, True),
    "TurnService.AnswerStep": Method("/kfm.turn.v1.TurnService/AnswerStep", "kfm.turn.v1.AnswerStepRequest", "kfm.turn.v1.AnswerStepResponse", False, True, False),
    "TurnService.SettleStep": Method("/kfm.turn.v1.TurnService/SettleStep", "kfm.turn.v1.SettleStepRequest", "kfm.turn.v1.SettleStepResponse", False, True, False),
    "TurnService.ExplainTurn": Method("/kfm.turn.v1.TurnService/ExplainTurn", "kfm.turn.v1.ExplainTurnRequest", "kfm.turn.v1.ExplainTurnResponse", False, True, True),
    "WorkerService.Work": Method("/kfm.worker.v1.WorkerService/Work", "kfm.worker.v1.WorkRequest", "kfm.worker.v1.WorkResponse", True, False, False),
}
